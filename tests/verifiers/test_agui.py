"""What is said in AG-UI, judged by its own client: schemas, verifier, and what it makes of it."""

from __future__ import annotations

import itertools
import json
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowtrio import AgentEvent
from tests.protocols.agui import Told, bare, read_body, reader, segment, texts_in, told_by
from tests.protocols.logs import ALL, FEW_SEEDS, NAMES, any_log, log_of, waits_of
from tests.support.node import Node, running

from .servers import serving

FEW = [*NAMES, *map(str, FEW_SEEDS)]
THREADS = (f"thread{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with running(Path(__file__).with_name("agui.mjs")) as program:
        yield program


def run(node: Node, **what: Any) -> Any:
    """Have the client run, and complain of nothing."""
    got = node.ask("run", **what)
    assert "refused" not in got, got["refused"]
    assert got["complaints"] == []
    return got


def kept(got: Any) -> list[Told]:
    """The client's messages, without those that it never sends."""
    return [m for m in got["messages"] if m["role"] != "activity"]


def cancelling(got: Any) -> Told | None:
    """Decisions that are fit for any interrupt, also for one of long ago."""
    return {i["id"]: {"status": "cancelled"} for i in got["interrupts"]} or None


def check_texts(log: Sequence[AgentEvent], messages: Sequence[Told]) -> None:
    said = {m["id"]: m.get("content", "") for m in messages if m["role"] in ("assistant", "user")}
    said.pop(f"{log[0].run_id}:result", None)
    assert {key: text for key, text in said.items() if text} == texts_in(log)


# Logs


@pytest.mark.parametrize("name", ALL)
def test_a_log_is_accepted_and_its_texts_are_the_logs(node: Node, name: str) -> None:
    log = any_log(name)
    node.ask("written", threadId="thread")
    got = run(node, events=told_by(log, raw=True), parameters={"runId": "theirs"})

    check_texts(log, got["messages"])
    assert got["raw"] == msgspec.to_builtins(log)
    if got.get("outcome") == "success":
        assert got["pendingToolCallIds"] == []


@pytest.mark.parametrize("name", [n for n in ALL if n in NAMES or waits_of(any_log(n))])
def test_a_log_that_is_split_at_every_wait_makes_the_same_messages(node: Node, name: str) -> None:
    log = any_log(name)
    node.ask("written", threadId="thread")
    whole = kept(run(node, events=told_by(log)))
    node.ask("written", threadId="thread")
    got: Any = {"messages": [], "interrupts": []}
    after = -1
    for place in [*waits_of(log), log[-1].seq]:
        one = segment(log, reader(f"run{after}", kept(got)), after)
        told = read_body(one.feed(log[: after + 1]) + one.feed(log[after + 1 : place + 1]))
        got = run(node, events=told, responses=cancelling(got))
        after = place

    assert kept(got) == whole


@pytest.mark.parametrize("name", FEW)
def test_what_was_lost_is_set_right_wherever_the_connection_broke(node: Node, name: str) -> None:
    log = any_log(name)
    told = told_by(log)
    node.ask("written", threadId="thread")
    whole = bare(kept(run(node, events=told)))
    for place in range(1, len(told), max(1, len(told) // 4)):
        node.ask("written", threadId="thread")
        half = kept(run(node, events=told[:place]))
        got = kept(run(node, events=told_by(log, reader(messages=half))))

        assert sorted(bare(got), key=_id) == sorted(whole, key=_id)


def _id(message: Told) -> str:
    return str(message["id"])


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (
            lambda told: [t for t in told if t["type"] != "TEXT_MESSAGE_END"],
            "still active: plain:m1",
        ),
        (lambda told: [{**t, "delta": None} if "delta" in t else t for t in told], "delta"),
        (lambda told: told[1:], "First event must be 'RUN_STARTED'"),
        (lambda told: [*told, told[-2]], "already finished"),
    ],
)
def test_a_planted_bug_is_caught(node: Node, planted: Any, complaint: str) -> None:
    node.ask("written", threadId="thread")
    got = node.ask("run", events=planted(told_by(log_of("plain"))))

    assert complaint in got["refused"]


def test_texts_that_are_not_the_logs_are_noticed(node: Node) -> None:
    log = log_of("plain")
    told = told_by(log)
    del told[3]  # one of its pieces
    node.ask("written", threadId="thread")
    got = run(node, events=told)

    with pytest.raises(AssertionError):
        check_texts(log, got["messages"])


# Live


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """A server's two addresses, in a process of its own."""
    with serving("agui_server") as urls:
        yield urls


@pytest.fixture
def serve(node: Node, servers: list[str]) -> Any:
    def begin(agent: str = "", window: bool = True) -> str:
        url = servers[0 if window else 1]
        node.ask("served", url=f"{url}/ag-ui{agent}", threadId=next(THREADS))
        return url

    return begin


def saying(text: str) -> list[Told]:
    return [{"id": f"said-{text}", "role": "user", "content": text}]


def resolved(payload: Any) -> Told:
    return {"status": "resolved", "payload": payload}


def contents(got: Any, role: str) -> list[str]:
    return [m.get("content", "") for m in got["messages"] if m["role"] == role]


def test_two_calls_at_once_one_approved_and_one_denied(node: Node, serve: Any) -> None:
    serve()
    first = run(node, say=saying("two"))
    one, two = (i["id"] for i in first["interrupts"])
    refusal = {"approved": False, "reason": "too dear"}
    responses = {one: resolved({"approved": True}), two: resolved(refusal)}
    second = run(node, responses=responses)

    assert first["outcome"] == "interrupt"
    assert second["outcome"] == "success"
    assert sorted(contents(second, "tool")) == [
        "booked Paris",
        "error: the call was denied: too dear",
    ]
    assert contents(second, "assistant") == ["Two, then. ", "Booked one."]
    assert contents(second, "reasoning") == ["Let me see. "]
    assert second["interrupts"] == []


def test_a_question(node: Node, serve: Any) -> None:
    serve()
    first = run(node, say=saying("colour"))
    [question] = first["interrupts"]
    second = run(node, responses={question["id"]: resolved({"text": "blue"})})

    assert question["message"] == "Which colour?"
    assert contents(second, "tool") == ["painted blue"]
    progress = [m["content"]["progress"] for m in second["messages"] if m["role"] == "activity"]
    assert progress == ["looking for colours"]


def test_what_is_said_anew(node: Node, serve: Any) -> None:
    serve()
    got = run(node, say=saying("again"))

    assert contents(got, "assistant") == ["Right."]
    assert contents(got, "reasoning") == [""]


def test_a_tool_of_the_front_end(node: Node, serve: Any) -> None:
    serve("/front")
    tools = [{"name": "where", "description": "Where the user is.", "parameters": {}}]
    first = run(node, say=saying("where"), parameters={"tools": tools})
    [call_id] = first["pendingToolCallIds"]
    given = {"id": "given", "role": "tool", "toolCallId": call_id, "content": "at home"}
    second = run(node, say=[given], parameters={"tools": tools})

    assert contents(second, "tool") == ["at home"]
    assert contents(second, "assistant") == ["Where? ", "There."]
    assert second["pendingToolCallIds"] == []


def test_a_client_that_stops_stops_the_run(node: Node, serve: Any) -> None:
    url = serve(window=False)
    got = node.ask("run", say=saying("much"), abort="TEXT_MESSAGE_CONTENT")
    run_id = got["started"]["metadata"]["flowtrio"]["runId"]
    with urllib.request.urlopen(f"{url}/runs/{run_id}/events", timeout=20) as response:
        last = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")][-1]

    assert got["error"]["code"] == "abort"
    assert last["data"]["status"] == "cancelled"


def play(node: Node, serve: Any, cut: int | None) -> tuple[list[Told], int]:
    """Two calls and their decisions; each answer is lost behind *cut* bytes, and asked for again.

    Gives the messages, and how many answers were lost.
    """
    serve()
    lost, say = 0, saying("two")
    got: Any = {}
    for number in range(2):
        responses = None
        if number:
            responses = {i["id"]: resolved(True) for i in got["interrupts"]}
        parameters = {"runId": f"run{number}-{next(THREADS)}"}
        where: Told = {} if cut is None else {"cut": cut}
        got = node.ask("run", say=say, responses=responses, parameters=parameters, **where)
        if "outcome" not in got:
            lost += 1
            got = run(node, responses=responses, parameters=parameters)
        say = []
    assert got["outcome"] == "success"
    return [_without_run(m) for m in bare(kept(got))], lost


def _without_run(message: Told) -> Told:
    """A message, named as it would be in any run."""
    text = json.dumps(message).replace(message["id"].partition(":")[0] + ":", "")
    made: Told = json.loads(text)
    return made


def test_a_connection_that_is_lost_at_any_byte(node: Node, serve: Any) -> None:
    whole, _ = play(node, serve, None)
    lost = 0
    for cut in range(0, 4500, 151):
        messages, more = play(node, serve, cut)
        lost += more

        assert sorted(messages, key=_id) == sorted(whole, key=_id), cut
    assert lost > 20
