"""What has to hold of every run: the laws, and what the world saw held against the log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from flowtrio import EventType, StreamMode, project
from flowtrio.testing import SimulatedRun, check_messages, find_violations

from .worlds import EDITED, Witness, World, play

T = EventType

REACH = 0.05
"""Seconds within which a cancellation has to reach everything (L7)."""
OPENING = (T.AGENT_START, T.INPUT_REQUIRED)
CLOSING = (T.MESSAGE_COMPLETE, T.TOOL_CALL_END, T.AGENT_END, T.INPUT_RESOLVED)


def problems_of(world: World) -> list[str]:
    """Play a world; give every break of a law as a sentence that begins with its name."""
    try:
        run, witness = play(world)
    except Exception as exc:
        return [f"L2 the run broke its own runtime: {type(exc).__name__}: {exc}"]
    problems = list(_of_the_log(run))
    if run.events[-1].type is T.DONE:
        problems += [*_of_the_end(world, run, witness), *_of_the_views(run)]
        problems += _of_people(run, witness)
    return problems


def _of_the_log(run: SimulatedRun) -> Iterator[str]:
    for violation in find_violations(run.events):
        yield str(violation)
    for event in run.events:
        if event.type is T.ERROR and event.data["code"] == "internal_failed":
            yield f"L10 an error of the runtime's own: {event.data['error']}"
        if "LocalProtocolError" in str(event.data.get("error")):
            yield f"L4 the runtime tried what its law refuses: {event.data['error']}"
    try:
        check_messages(run.messages)
    except AssertionError as exc:
        yield f"L11 {exc}"


def _cut_by_the_user(run: SimulatedRun) -> int:
    return sum(
        one.type is T.MESSAGE_COMPLETE
        and one.data["finish_reason"] == "cancelled"
        and following.type is T.USER_MESSAGE
        for one, following in pairwise(run.events)
    )


def _of_the_end(world: World, run: SimulatedRun, witness: Witness) -> Iterator[str]:
    if run.left_alive:
        yield f"L5 alive after the end: {', '.join(run.left_alive)}"
    # What was said and not taken is told at the end, as closers are.
    bound = world.limits.buffer + _open_at_most(run) + len(world.posts) + 3
    if run.most_undelivered > bound:
        yield f"L6 {run.most_undelivered} events undelivered, expected {bound} at most"
    tidying = max([s for kind, s in world.tools.values() if kind == "tidies"], default=0.0)
    if run.closing_seconds > tidying + REACH:
        yield f"L7 the end took {run.closing_seconds} s"
    for event in run.events:
        if event.type is T.TOOL_CALL_END and event.data["outcome"] in ("cancelled", "timeout"):
            left = witness.left.get(event.data["call_id"], 0.0)
            if left > event.timestamp + tidying + REACH:
                yield f"L7 call {event.data['call_id']} ran {left - event.timestamp} s longer"
    # One that fails in the moment in which the user cuts in is asked again, as any that he cuts.
    if witness.cuts > _cut_by_the_user(run) and run.status == "completed":
        yield "L10 a reply was cut, and the run completed"
    for value in witness.strange:
        yield f"L10 {value!r} reached a tool that takes a whole number"


def _of_people(run: SimulatedRun, witness: Witness) -> Iterator[str]:
    """What people said, edited and declined, and what a hook denied, is what came of it."""
    told = [event.data["message"] for event in run.events if event.type is T.USER_MESSAGE]
    accepted = [text for text, took in witness.posts if took]
    if told != accepted:
        yield f"L11 accepted were {accepted}, told {told}"
    kept = [m["content"] for m in run.messages if m["role"] == "user"]
    for text, took in witness.posts:
        if kept.count(text) != took:
            yield f"L11 {text!r} was {took}, and stands {kept.count(text)} times in it"
    starts = {e.data["call_id"]: e.data for e in run.events if e.type is T.TOOL_CALL_START}
    for key in witness.edited:
        found = starts.get(key, {}).get("arguments")
        if key in starts and not (
            found == {"n": EDITED} and witness.ran.get(key, EDITED) == EDITED
        ):
            yield f"L10 {key} was edited, START has {found}, it ran with {witness.ran.get(key)}"
    ends = {e.data["call_id"]: e.data for e in run.events if e.type is T.TOOL_CALL_END}
    for key in witness.denied:
        if ends[key]["outcome"] not in ("denied", "cancelled", "timeout"):
            yield f"L10 {key} was denied, its END says {ends[key]['outcome']}"
    outcomes = {
        e.data["request_id"]: e.data["outcome"] for e in run.events if e.type is T.INPUT_RESOLVED
    }
    for key in witness.declined:
        if outcomes[key] != "declined":
            yield f"L10 {key} was declined, it is {outcomes[key]}"


def _open_at_most(run: SimulatedRun) -> int:
    """Brackets that were open at once, at most."""
    open_keys: set[str] = set()
    most = silent = 0
    for event in run.events:
        data = event.data
        key = data.get("call_id") if event.type not in (T.AGENT_START, T.AGENT_END) else event.agent
        key = key or data.get("message_id") or data.get("request_id")
        if key is None:
            continue
        if event.type in CLOSING:
            # A message that nobody heard of before was open all the same: its turn had begun.
            silent += key not in open_keys
            open_keys.discard(key)
        else:
            open_keys.add(key)
        most = max(most, len(open_keys))
    return most + silent


def _of_the_views(run: SimulatedRun) -> Iterator[str]:
    values = list(project(StreamMode.VALUES, run.events))
    if values != list(project(StreamMode.VALUES, project(StreamMode.UPDATES, run.events))):
        yield "L8 folding UPDATES does not give what VALUES shows"
    if not values:
        return
    state = values[-1].data["state"]
    if (found := _texts(state)) != (expected := _naive_texts(run)):
        yield f"L8 the last state has messages {found}, expected {expected}"
    if state["status"] != run.status:
        yield f"L8 the last state is {state['status']}, expected {run.status}"


def _texts(state: dict[str, Any]) -> dict[str, tuple[str, str]]:
    messages = state["messages"]
    each = messages.values() if isinstance(messages, dict) else messages
    return {m["message_id"]: (m["content"], m["reasoning"]) for m in each}


def _naive_texts(run: SimulatedRun) -> dict[str, tuple[str, str]]:
    texts: dict[str, tuple[str, str]] = {}
    for event in run.events:
        message_id = event.data.get("message_id")
        text, thought = texts.get(str(message_id), ("", ""))
        match event.type:
            case T.MESSAGE_CHUNK:
                texts[str(message_id)] = (text + event.data["chunk"], thought)
            case T.REASONING_CHUNK:
                texts[str(message_id)] = (text, thought + event.data["chunk"])
            case T.MESSAGE_RESET:
                texts[str(message_id)] = ("", "")
            case T.MESSAGE_PART | T.MESSAGE_COMPLETE:
                texts[str(message_id)] = (text, thought)
            case _:
                pass
    return texts
