"""Traces of simulated runs, of all that can happen in one: whole, each of one piece, and mute."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.trace import INVALID_SPAN_CONTEXT

from flowtrio import EventType
from flowtrio.otel._spans import RunSpans
from tests.hostile import world as hostile
from tests.hostile.programs import draw
from tests.proof.worlds import NAMES, World, draw_world, play

from .traced import find_breaks, find_faults, loud_detach, traced

RUNS = 300
HOSTILE = 400
RAISED = ("ValueError", "SimulatedFailure", "DeadlineExceeded", "InputDeclined")
"""What tools and agents of these worlds may raise, by type."""


def faults_of(world: World) -> list[str]:
    """Simulate a world with telemetry; give what is wrong with its trace."""
    seen: dict[str, int] = {}

    async def around_tool(ctx: Any, call: Any, proceed: Any) -> Any:
        # What a call may still do once its END is recorded belongs to no span that is open.
        span = trace.get_current_span()
        if span.is_recording():
            seen[call.id] = span.get_span_context().span_id
        return await proceed()

    made = traced()
    with loud_detach() as heard:
        run, _ = play(world, made.telemetry, around_tool)
    ids = set()
    for event in run.events:
        ids.add(event.data.get("call_id") or "")
        ids.add(event.run_id)
        ids.add(event.agent.rpartition("/")[2].partition("#")[0])
    agent = run.events[0].data["agent"]
    error = next((e.data["code"] for e in run.events if e.type is EventType.ERROR), "")
    names = {*NAMES, *ids, agent, error, "default", *RAISED}
    faults = find_faults(made.kept, run.events, names) + heard
    for call_id, span_id in seen.items():
        told = [s for s in made.kept.ended if s.context.span_id == span_id]
        if [(s.attributes or {}).get("gen_ai.tool.call.id") for s in told] != [call_id]:
            faults.append(f"{call_id}: its body had another current span")
    return faults


def test_the_traces_of_simulated_runs_are_whole_and_mute() -> None:
    for seed in range(RUNS):
        world = draw_world(Random(seed))

        assert faults_of(world) == [], f"seed {seed}: {world}"


def breaks_of_hostile(seed: int) -> list[str]:
    """Play a hostile program with telemetry; give what breaks its trace."""
    made = traced()
    with loud_detach() as heard:
        hostile.play(draw(seed), telemetry=made.telemetry)
    return [*(find_breaks(made.kept) if made.kept.begun else ()), *heard]


def test_the_traces_of_hostile_programs_are_whole() -> None:
    for seed in range(HOSTILE):
        assert breaks_of_hostile(seed) == [], f"seed {seed}"


# Planted bugs


def _stands_in_whatever_is_current(self: Any, agent: str, call_id: str | None) -> Any:
    return get_current()


def _stands_in_nothing(self: Any, agent: str, call_id: str | None) -> Any:
    return trace.set_span_in_context(trace.NonRecordingSpan(INVALID_SPAN_CONTEXT))


def _tells_what_was_said(self: Any, event: Any) -> None:
    HEAR(self, event)
    if event.type is EventType.RUN_START:
        self._agents["root"].span.set_attribute("said", event.data["message"])


def _leaves_open(self: Any, opened: Any, event: Any, outcome: str, why: Any, words: Any) -> None:
    opened.is_open = False
    if outcome != "cancelled":
        END(self, opened, event, outcome, why, words)


def _tells_why(self: Any, opened: Any, event: Any, outcome: str, why: Any, words: Any) -> None:
    self._has_content = True
    END(self, opened, event, outcome, why, words)
    self._has_content = False


def _is_current_nowhere(self: Any, ctx: Any, call: Any, proceed: Any) -> Any:
    return self.around_agent(ctx, proceed)


HEAR, END = RunSpans._hear, RunSpans._end
PLANTED = {
    "_hear": (_tells_what_was_said,),
    "_around": (_stands_in_whatever_is_current, _stands_in_nothing),
    "_end": (_leaves_open, _tells_why),
    "around_tool": (_is_current_nowhere,),
}


@pytest.mark.parametrize(
    ("name", "bug"), [(name, bug) for name, bugs in PLANTED.items() for bug in bugs]
)
def test_a_planted_bug_is_found(name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunSpans, name, bug)

    assert any(faults_of(draw_world(Random(seed))) for seed in range(RUNS))
