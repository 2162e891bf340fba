"""Conversations of many users: who sees what, who waits, and who answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio

from flowtrio import EventStream, EventType, Limits, Orchestrator, RunContext, RunFailed, ToolCall
from flowtrio._core._values import told
from flowtrio._run._controls import fail_run
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import done_of, error_of

T = EventType


async def remembering(ctx: RunContext, message: str) -> str:
    """Answer with the user's own words so far, one second later."""
    await trio.sleep(1)
    said = [m["content"] for m in ctx.history if m["role"] == "user"]
    answer = " ".join([*said, message])
    async with ctx.message() as out:
        await out.write(answer)
    return answer


async def read(orchestrator: Orchestrator, message: str, **options: Any) -> list[Any]:
    async with orchestrator.process_stream(message, **options) as stream:
        return [event async for event in stream]


async def test_conversations_of_two_tenants_never_mix(autojump_clock: Any) -> None:
    orchestrator = Orchestrator(agents=[remembering])
    logs: dict[tuple[str, str, int], list[Any]] = {}

    async def speak(tenant: str, session: str, turn: int) -> None:
        message = f"{tenant}-{session}-{turn}"
        logs[tenant, session, turn] = await read(
            orchestrator, message, tenant_id=tenant, session_id=session
        )

    for turn in range(3):
        async with trio.open_nursery() as nursery:
            for tenant in ("one", "two"):
                for session in ("a", "b", "c"):
                    nursery.start_soon(speak, tenant, session, turn)

    assert len(logs) == 18
    for (tenant, session, turn), log in logs.items():
        check_events(log)
        expected = [f"{tenant}-{session}-{number}" for number in range(turn + 1)]
        assert done_of(log)["result"] == " ".join(expected)


async def _two_at_once(orchestrator: Orchestrator) -> list[list[Any]]:
    logs: list[list[Any]] = [[], []]

    async def speak(place: int) -> None:
        await trio.sleep(place * 0.5)
        logs[place] = await read(orchestrator, f"m{place}", tenant_id="t", session_id="s")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak, 0)
        nursery.start_soon(speak, 1)
    for log in logs:
        check_events(log)
    return logs


@pytest.mark.parametrize(
    ("on_busy", "statuses"),
    [
        ("queue", ["completed", "completed"]),
        ("reject", ["completed", "error"]),
        ("cancel", ["cancelled", "completed"]),
    ],
)
async def test_a_message_for_a_busy_conversation(
    on_busy: Any, statuses: list[str], autojump_clock: Any
) -> None:
    logs = await _two_at_once(Orchestrator(agents=[remembering], on_busy=on_busy))

    assert [done_of(log)["status"] for log in logs] == statuses
    if on_busy == "queue":
        assert done_of(logs[1])["result"] == "m0 m1"
    if on_busy == "reject":
        assert error_of(logs[1])["code"] == "session_busy"
        assert error_of(logs[1])["source"] == "limit"


async def test_who_waited_too_long_is_told(autojump_clock: Any) -> None:
    logs = await _two_at_once(Orchestrator(agents=[remembering], queue_wait=0.1))

    assert error_of(logs[1])["code"] == "session_busy"


async def test_a_tenant_has_only_so_many_runs(autojump_clock: Any) -> None:
    orchestrator = Orchestrator(agents=[remembering], runs_per_tenant=1)
    logs: dict[str, list[Any]] = {}

    async def speak(name: str, tenant: str) -> None:
        logs[name] = await read(orchestrator, name, tenant_id=tenant, session_id=name)

    async with trio.open_nursery() as nursery:
        for name, tenant in (("a", "one"), ("b", "one"), ("c", "two")):
            nursery.start_soon(speak, name, tenant)

    ended = {name: done_of(log)["status"] for name, log in logs.items()}
    assert sorted([ended["a"], ended["b"]]) == ["completed", "error"]
    assert ended["c"] == "completed"
    [refused] = [log for log in logs.values() if done_of(log)["status"] == "error"]
    assert error_of(refused)["code"] == "tenant_busy"
    # The place is free again.
    assert done_of(await read(orchestrator, "d", tenant_id="one"))["status"] == "completed"


async def first(ctx: RunContext, message: str) -> str:
    """Talk of the weather."""
    return "first"


async def second(ctx: RunContext, message: str) -> str:
    """Talk of money."""
    return "second"


async def _later(message: str, ctx: RunContext) -> str:
    await trio.lowlevel.checkpoint()
    return "second"


@pytest.mark.parametrize(
    "route", [lambda message, ctx: "second", lambda message, ctx: second, _later]
)
async def test_a_route_chooses_who_answers(route: Callable[..., Any]) -> None:
    orchestrator = Orchestrator(agents=[first, second], route=route)

    assert await orchestrator.process("hello") == "second"


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ([ToolCall("p1", "choose_agent", {"agent": "second"})], "second"),
        ([ToolCall("p1", "choose_agent", {"agent": "nobody"})], "first"),
        ("I would say second.", "second"),
        ("No idea.", "first"),
    ],
)
async def test_the_model_chooses_who_answers(answer: Any, chosen: str) -> None:
    with ScriptedModel(answer) as model:
        orchestrator = Orchestrator(agents=[first, second], llm_client=model)
        log = await read(orchestrator, "hello")

    check_events(log)
    assert done_of(log)["result"] == chosen
    assert "Talk of money." in model.requests[0].messages[0]["content"]


async def test_a_name_that_nobody_has_fails_the_run() -> None:
    orchestrator = Orchestrator(agents=[first], route=lambda message, ctx: "nobody")

    with pytest.raises(RunFailed, match="nobody"):
        await orchestrator.process("hello")


# What is built wrong, and stores that fail


async def other(ctx: RunContext, message: str) -> str:
    """Be somebody else."""
    return "other"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "expected llm_client"),
        ({"agents": []}, "at least one agent"),
        ({"agents": [other], "tools": [remembering]}, "belong to the agents"),
        ({"agents": [other, other], "route": lambda m, c: other}, "a name of its own"),
        ({"agents": [other, remembering]}, "to choose"),
        ({"agents": [other], "on_busy": "wait"}, "expected 'queue'"),
    ],
)
def test_an_orchestrator_says_what_it_needs(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        Orchestrator(**options)


@pytest.mark.parametrize("name", ["tenant_id", "session_id"])
@pytest.mark.parametrize("value", ["", 7, "\ud800"])
def test_ids_are_texts_that_are_not_empty(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} .*: expected a text"):
        Orchestrator(agents=[other]).process_stream("hi", **{name: value})


class Failing:
    """A store of conversations that fails, or takes for ever."""

    def __init__(self, where: str) -> None:
        self.where = where

    async def load(self, tenant_id: str, session_id: str) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if self.where == "load":
            raise OSError("no disk")
        if self.where == "load, a group":
            raise ExceptionGroup("of a nursery of its own", [OSError("no disk"), ValueError("x")])
        if self.where == "load for ever":
            await trio.sleep_forever()
        return []

    async def save(self, tenant_id: str, session_id: str, messages: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.where == "save":
            raise OSError("no disk")
        if self.where == "hang":
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("load", "no disk"),
        ("load, a group", "no disk"),
        ("load for ever", "TooSlowError"),
        ("save", "no disk"),
        ("hang", "took longer than"),
    ],
)
async def test_a_store_that_fails_is_the_error_of_the_run(
    where: str, words: str, autojump_clock: Any
) -> None:
    conversations = Failing(where)
    orchestrator = Orchestrator(agents=[other], conversations=conversations)

    with trio.fail_after(15):
        log = await read(orchestrator, "hi", session_id="s")
    conversations.where = "nowhere"
    again = await read(orchestrator, "hi", session_id="s")

    check_events(log)
    assert error_of(log)["source"] == "store"
    assert words in error_of(log)["error"]
    assert done_of(again)["status"] == "completed"


async def test_a_run_that_ended_before_it_began_has_no_place_in_its_conversation() -> None:
    orchestrator = Orchestrator(agents=[other])
    stream = orchestrator.process_stream("hi", session_id="s")

    fail_run(stream, "shutdown", "internal", "planted")
    async with stream:
        log = [event async for event in stream]

    check_events(log)
    assert error_of(log)["causes"] == []


async def to_the_end(stream: EventStream) -> None:
    async with stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_run_that_outlasts_its_grace_takes_nothing_back(
    goes_on: bool, autojump_clock: Any
) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        try:
            async with ctx.message() as out:
                await out.write(f"re {message}")
            if message == "slow":
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60 if message == "slow" else 0)

    async with Orchestrator(agents=[agent], limits=Limits(grace=2), on_busy="cancel") as o:
        await read(o, "first", session_id="s")
        async with trio.open_nursery() as nursery:
            slow = o.process_stream("slow", session_id="s")
            nursery.start_soon(to_the_end, slow)
            await trio.sleep(1)
            if goes_on:
                await read(o, "third", session_id="s")
            else:
                slow.cancel()
        kept = [m["content"] for m in await o.conversations.load("default", "s")]

    last = "third" if goes_on else "slow"
    assert kept == ["first", "re first", last, f"re {last}"]


async def test_runs_find_the_orchestrators_app_unless_they_bring_their_own() -> None:
    async def show(ctx: RunContext, message: str) -> Any:
        return ctx.app

    orchestrator = Orchestrator(agents=[show], app="ours")

    assert await orchestrator.process("hi") == "ours"
    assert await orchestrator.process("hi", app="its own") == "its own"
    assert await orchestrator.process_stream("hi").result() == "ours"
    async with orchestrator:
        run_id = await orchestrator.start("hi")
        async with orchestrator.attach(run_id) as follower:
            events = [event async for event in follower]
    assert events[-1].data["result"] == "ours"


NO_NUMBERS: list[Any] = [-1, math.nan, 10**400, 10**5000, 2**53 + 1, True, "1", [1]]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("queue_wait", value) for value in [*NO_NUMBERS, None]),
        *(("queue_length", value) for value in [*NO_NUMBERS, None, 0.5]),
        *(("runs_per_tenant", value) for value in [*NO_NUMBERS, 0, 0.5, math.inf]),
    ],
    ids=told,
)
def test_a_number_that_means_nothing_is_refused_where_it_is_given(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option}=.*: expected ") as caught:
        Orchestrator(llm_client=ScriptedModel(), **{option: value})

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("queue_wait", value) for value in (0, 0.1, 2**53, math.inf)),
        *(("queue_length", value) for value in (0, 2**53, math.inf)),
        *(("runs_per_tenant", value) for value in (1, 2**53, None)),
    ],
)
def test_a_number_is_kept_as_it_was_given(option: str, value: Any) -> None:
    made = Orchestrator(llm_client=ScriptedModel(), **{option: value})

    assert getattr(made, option) == value
