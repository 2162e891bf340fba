"""Tools that are run by whoever reads the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowtrio import ClientTool, EventStream, EventType, Limits, Orchestrator, StreamEngine
from flowtrio.testing import ScriptedModel, check_events
from tests.runtime._programs import call, only, play, runner

T = EventType

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
}


def opening(**arguments: Any) -> ScriptedModel:
    return ScriptedModel([call("open", **arguments)], "Done.")


def opener() -> Any:
    return ClientTool("open", "Open a file in the editor.", SCHEMA)


def pressing(press: Callable[[EventStream, str], bool]) -> Any:
    """A reader that does *press* when it is asked."""

    async def reader(stream: EventStream, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                assert press(stream, event.data["request_id"])

    return reader


@pytest.mark.parametrize("result", [{"lines": 3}, [1, None], 5, "opened", None, False])
async def test_an_answer_is_the_result_of_the_call(result: Any) -> None:
    reader = pressing(lambda stream, id: stream.answer(id, result))

    played = await play(runner(opening(path="a.py"), opener()), reader=reader)
    check_events(played.log)

    [start], [asked] = only(played.log, T.TOOL_CALL_START), only(played.log, T.INPUT_REQUIRED)
    [end] = only(played.log, T.TOOL_CALL_END)
    assert start["arguments"] == {"path": "a.py"}
    assert asked["call_id"] == start["call_id"] == end["call_id"]
    assert asked["schema"] is not None
    assert (end["outcome"], end["result"]) == ("ok", result)


@pytest.mark.parametrize(
    ("reason", "told"), [("no editor", "no editor"), ("", "the other side declined to run it")]
)
async def test_a_call_that_is_dismissed_ends_denied(reason: str, told: str) -> None:
    reader = pressing(lambda stream, id: stream.dismiss(id, reason))

    played = await play(runner(opening(path="a.py"), opener()), reader=reader)
    check_events(played.log)

    [end] = only(played.log, T.TOOL_CALL_END)
    assert (end["outcome"], end["error"]) == ("denied", told)


async def test_a_call_that_nobody_answers_ends_error(autojump_clock: Any) -> None:
    agent = runner(opening(path="a.py"), opener())

    async with StreamEngine(limits=Limits(input=5)).stream(agent, "go") as stream:
        log = [event async for event in stream]

    [end] = only(log, T.TOOL_CALL_END)
    assert end["outcome"] == "error"
    assert "within 5 s" in end["error"]


async def test_arguments_that_do_not_fit_are_not_asked_about() -> None:
    played = await play(runner(opening(path=3), opener()))

    assert only(played.log, T.INPUT_REQUIRED) == []
    assert [end["outcome"] for end in only(played.log, T.TOOL_CALL_END)] == ["error"]


def test_a_schema_that_is_none_is_refused_when_the_tool_is_made() -> None:
    with pytest.raises(ValueError, match="open"):
        ClientTool("open", "", {"type": "array"})


async def test_it_may_be_given_for_one_run() -> None:
    orchestrator = Orchestrator(agents=[runner(opening(path="a.py"))])
    log: list[Any] = []

    async with orchestrator.process_stream("go", tools=[opener()]) as stream:
        await pressing(lambda stream, id: stream.answer(id, {"lines": 3}))(stream, log)

    [end] = only(log, T.TOOL_CALL_END)
    assert (end["outcome"], end["result"]) == ("ok", {"lines": 3})
