"""What is said in the AI SDK's protocol, read by the AI SDK: logs of every ending, in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from flowtrio import AgentEvent, EventType
from flowtrio.protocols._ai_sdk._mapper import UIMessageMapper
from flowtrio.serving.http._segments import Segment
from flowtrio.wire._sse import encode_json_event as encode_chunk
from tests.protocols.logs import ALL, FEW_SEEDS, NAMES, any_log, waits_of
from tests.support.node import make_place, run_node

T = EventType
SCRIPT = Path(__file__).with_name("ai_sdk_read.mjs")
FEW = [*NAMES, *map(str, FEW_SEEDS)]


def answer(
    log: Sequence[AgentEvent], *, begin: int = -1, after: int = -1, end: int | None = None
) -> str:
    """The body of an answer; with *end* one that pauses there, or is cut."""
    mapper = UIMessageMapper(log[0].run_id, begin)
    told = Segment(mapper=mapper, encode=encode_chunk, after=after, shows_errors=True)
    last = len(log) - 1 if end is None else end
    body = told.feed(log[: last + 1])
    return body.decode()


def answers_of(log: Sequence[AgentEvent], *, in_one: bool) -> list[dict[str, Any]]:
    """A log that stops at every wait, all in one message or each in another."""
    told, after = [], -1
    for wait in [*waits_of(log), len(log) - 1]:
        begin = -1 if in_one else after
        body = answer(log, begin=begin, after=after, end=wait)
        told.append({"body": body, "goesOn": in_one and after >= 0})
        after = wait
    return told


def read_all(tmp_path: Path, cases: Iterable[tuple[str, list[dict[str, Any]]]]) -> list[Any]:
    place = make_place(tmp_path, SCRIPT)
    lines = [json.dumps({"name": name, "answers": answers}) for name, answers in cases]
    said = run_node(place, SCRIPT.name, said="\n".join(lines))
    return [json.loads(line) for line in said.split("\n") if line]


def texts_of(messages: Sequence[Any]) -> tuple[str, str]:
    """The text that messages have, and their reasoning, without what was taken back or refused."""
    found = {"text": "", "reasoning": ""}
    for message in messages:
        for part in message["parts"]:
            private = (part.get("providerMetadata") or {}).get("flowtrio", {})
            if part["type"] in found and not private:
                found[part["type"]] += part["text"]
    return found["text"], found["reasoning"]


def said_in(log: Sequence[AgentEvent]) -> tuple[str, str]:
    """What the agent said, by the log."""
    text: dict[str, str] = {}
    reasoning: dict[str, str] = {}
    for event in log:
        if event.agent != "root":
            continue
        match event.type:
            case T.MESSAGE_CHUNK:
                text[event.data["message_id"]] = (
                    text.get(event.data["message_id"], "") + event.data["chunk"]
                )
            case T.REASONING_CHUNK:
                reasoning[event.data["message_id"]] = (
                    reasoning.get(event.data["message_id"], "") + event.data["chunk"]
                )
            case T.MESSAGE_RESET:
                text.pop(event.data["message_id"], None)
                reasoning.pop(event.data["message_id"], None)
    said = "".join(text.values())
    result = log[-1].data["result"]
    if not said and result not in (None, ""):
        said = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    return said, "".join(reasoning.values())


def check_read(told: Any) -> None:
    """What was read is what the log says."""
    log = any_log(told["name"].partition(" ")[0])
    assert told["refused"] == [], told["name"]
    failures = [event for event in log if event.type is T.ERROR]
    assert len(told["errors"]) == len(failures), told["name"]
    # Where several speak at once, their letters stand in another order.
    for read, said in zip(texts_of(told["messages"]), said_in(log), strict=True):
        assert sorted(read) == sorted(said), told["name"]
    ended = {f"{e.run_id}:{e.data['call_id']}": e.data for e in log if e.type is T.TOOL_CALL_END}
    parts = {
        part["toolCallId"]: part
        for message in told["messages"]
        for part in message["parts"]
        if "toolCallId" in part
    }
    for id, part in parts.items():
        states = {"ok": "output-available", "denied": "output-denied"}
        expected = states.get(ended[id]["outcome"], "output-error")
        assert part["state"] in (expected, "output-error", "output-denied"), (told["name"], part)
        if ended[id]["outcome"] == "ok":
            assert part["state"] == "output-available"
            assert part["output"] == ended[id]["result"]


def test_every_log_is_read_as_it_is_however_often_it_waits(tmp_path: Path) -> None:
    cases = []
    for name in ALL:
        log = any_log(name)
        cases.append((name, [{"body": answer(log), "goesOn": False}]))
        if waits_of(log):
            cases.append((f"{name} in one", answers_of(log, in_one=True)))
            cases.append((f"{name} in several", answers_of(log, in_one=False)))

    told = read_all(tmp_path, cases)

    assert len(told) == len(cases) > 350
    for one in told:
        check_read(one)


def test_a_page_that_sends_by_itself_sends_when_all_is_decided_and_only_then(
    tmp_path: Path,
) -> None:
    cases = []
    for name in [name for name in ALL if waits_of(any_log(name))]:
        cases.append((f"{name} in one", answers_of(any_log(name), in_one=True)))
        cases.append((f"{name} in several", answers_of(any_log(name), in_one=False)))

    told = read_all(tmp_path, cases)

    pauses = 0
    for one, (name, answers) in zip(told, cases, strict=True):
        assert one["sent"][-1] == [False, False], name
        for pause, (at_once, once_decided) in zip(answers, one["sent"][:-1], strict=False):
            *_, finish = [json.loads(line[6:]) for line in pause["body"].split("\n\n") if line]
            waiting = finish["messageMetadata"]["flowtrio"]["waitingFor"]
            is_said = all(asked["type"] == "question" for asked in waiting)
            assert not at_once, name
            # One that is written and has not begun yet comes with the next answer.
            assert once_decided == (not is_said) or has_written(pause["body"]), name
            pauses += 1
    assert pauses >= 50


def has_written(body: str) -> bool:
    """Whether calls are written in a body of which nothing else is told."""
    chunks = [json.loads(line[6:]) for line in body.split("\n\n") if line]
    begun = {chunk["toolCallId"] for chunk in chunks if chunk["type"] == "tool-input-start"}
    told = ("tool-input-available", "tool-input-error")
    return bool(begun - {chunk["toolCallId"] for chunk in chunks if chunk["type"] in told})


def test_an_answer_that_is_cut_or_begins_anywhere_is_not_refused(tmp_path: Path) -> None:
    random = Random(17)
    cases = []
    for name in FEW:
        log = any_log(name)
        for place in sorted(random.sample(range(len(log)), min(4, len(log)))):
            cases.append(
                (f"{name} to {place}", [{"body": answer(log, end=place), "goesOn": False}])
            )
            body = answer(log, begin=place, after=place)
            cases.append((f"{name} from {place}", [{"body": body, "goesOn": False}]))

    told = read_all(tmp_path, cases)

    assert [(one["name"], one["refused"]) for one in told if one["refused"]] == []
    assert len(told) == len(cases)


def test_an_answer_without_the_beginning_of_a_call_is_refused(tmp_path: Path) -> None:
    """The planted bug: no tool-input-start."""
    lines = answer(any_log("tools_in_turns")).split("\n\n")
    bad = "\n\n".join(line for line in lines if '"tool-input-start"' not in line)

    [told] = read_all(tmp_path, [("tools_in_turns", [{"body": bad, "goesOn": False}])])

    assert "missing tool call" in told["refused"][0]


def test_an_answer_without_a_piece_of_its_text_is_no_answer(tmp_path: Path) -> None:
    """Another planted bug: what is read is compared with the log."""
    lines = answer(any_log("plain")).split("\n\n")
    bad = "\n\n".join(line for line in lines if '"delta":"sunny"' not in line)
    [told] = read_all(tmp_path, [("plain", [{"body": bad, "goesOn": False}])])

    with pytest.raises(AssertionError):
        check_read(told)


@pytest.mark.parametrize("chunk", ['{"type": "text-delta", "id": "x"}', '{"type": "odd"}'])
def test_what_the_schema_does_not_know_is_refused(tmp_path: Path, chunk: str) -> None:
    bad = f"data: {chunk}\n\n" + answer(any_log("plain"))

    [told] = read_all(tmp_path, [("plain", [{"body": bad, "goesOn": False}])])

    assert told["refused"]
