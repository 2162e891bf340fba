"""Responses of logs of every ending, read by OpenAI's own library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import openai
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from flowtrio import AgentEvent, EventType
from flowtrio.protocols._openai._items import Speech
from flowtrio.protocols._openai._past import Past
from flowtrio.protocols._openai._responses import ResponseMapper
from flowtrio.serving.http._segments import Segment, Waits

from .logs import ALL, NAMES, any_log, log_of
from .test_openai_chat import CLIENT_TOOLS, texts_of

T = EventType
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ENDS = ("response.completed", "response.failed", "response.incomplete")


class Unlike(AssertionError):
    """What was told is not what the log has."""


def items_of(
    log: Sequence[AgentEvent],
    after: int = -1,
    kind: type[ResponseMapper] = ResponseMapper,
    *,
    attended: bool = True,
    **options: Any,
) -> tuple[list[dict[str, Any]], int]:
    """What a segment of a log is told as, and where it ended."""
    items: list[dict[str, Any]] = []

    def keep(item: dict[str, Any]) -> bytes:
        items.append(json.loads(json.dumps({**item, "sequence_number": len(items)})))
        return b""

    mapper = kind(run_id=log[0].run_id, model="m", client_tools=CLIENT_TOOLS, **options)
    decided = _asked(log[: after + 1])
    waits = Waits(is_attended=attended)
    segment = Segment(mapper=mapper, encode=keep, after=after, waits=waits, decided=decided)
    for event in log:
        segment.feed([event])
        if segment.is_over:
            break
    return items, segment.last


def _asked(log: Sequence[AgentEvent]) -> list[str]:
    waits = Waits()
    for event in log:
        waits.feed(event)
    return [*waits.approvals, *waits.questions]


def hear(items: Sequence[dict[str, Any]]) -> Response | None:
    """Read events strictly; give the response at the end."""
    state = ResponseStreamState(input_tools=openai.omit, text_format=openai.omit)
    last = None
    for number, item in enumerate(items):
        assert last is None
        event = EVENT.validate_json(json.dumps(item), strict=True)
        assert event.sequence_number == number
        state.handle_event(event)
        if event.type in ENDS:
            last = event.response
    return last


def check(log: Sequence[AgentEvent], kind: type[ResponseMapper] = ResponseMapper) -> None:
    """Hold what is told of a log, in all its responses, against the log."""
    for is_held, attended in ((True, True), (False, False)):
        after, responses = -1, list[Response]()
        while True:
            items, last = items_of(log, after, kind, attended=attended, is_held=is_held)
            response = hear(items)
            if response is None:
                raise Unlike("it has no end")
            responses.append(response)
            if last == log[-1].seq:
                break
            after = last
        _check_end(log, responses[-1])
        _check_items(log, [item for response in responses for item in response.output], attended)


def _check_end(log: Sequence[AgentEvent], response: Response) -> None:
    status = log[-1].data["status"]
    if response.status == "incomplete" and status == "completed":
        return
    if response.status != {"error": "failed"}.get(status, status):
        raise Unlike(f"it ended {status}, told {response.status}")
    assert (response.error is None) == (status == "completed")


def _check_items(log: Sequence[AgentEvent], items: Sequence[Any], attended: bool) -> None:
    said = ["".join(_text(c) for c in i.content) for i in items if i.type == "message"]
    for text in texts_of(log):
        if text not in said:
            raise Unlike(f"{text!r} is not among {said}")
    refused = [
        e for e in log if e.type is T.TOOL_CALL_END and e.data["tool_name"] not in CLIENT_TOOLS
    ]
    ended = [i.id for i in items if i.type == "mcp_call"]
    expected = [f"mcp_{e.run_id}:{e.data['call_id']}" for e in refused]
    if sorted(ended) != sorted(expected):
        raise Unlike(f"calls {ended}, expected {expected}")
    handed = {i.call_id for i in items if i.type == "function_call"}
    own = {
        f"{e.run_id}:{e.data['call_id']}"
        for e in log
        if e.type is T.TOOL_CALL_START and e.data["tool_name"] in CLIENT_TOOLS
    }
    if handed != own:
        raise Unlike(f"handed over {handed}, expected {own}")
    outcomes = {f"mcp_{e.run_id}:{e.data['call_id']}": e.data["outcome"] for e in refused}
    for item in items:
        if item.type == "mcp_call":
            assert (item.status == "completed") == (outcomes[item.id] == "ok")
            json.loads(item.arguments or "{}") if item.status == "completed" else None


def _text(content: Any) -> str:
    return "" if content.type == "refusal" else str(content.text)


@pytest.mark.parametrize("name", ALL)
def test_a_log_is_a_response_or_several(name: str) -> None:
    check(any_log(name))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_of_a_cut_log_is_how_the_whole_begins(name: str) -> None:
    log = log_of(name)
    whole, _ = items_of(log, attended=False)
    for place in range(1, len(log), 3):
        cut, _ = items_of(log[:place], attended=False)
        mapper = ResponseMapper(run_id="r", model="m")
        told = [item for event in log[:place] for item in mapper.feed(event)]
        broken = mapper.fail("replay_gap", "it is gone")

        assert cut == whole[: len(cut)]
        if told and told[-1]["type"] not in ENDS:
            numbered = [
                {**item, "sequence_number": number} for number, item in enumerate([*told, *broken])
            ]
            response = hear(json.loads(json.dumps(numbered)))
            assert response is not None
            assert response.error is not None


def test_calls_that_we_run_have_their_results_or_errors() -> None:
    items, _ = items_of(log_of("tools_side_by_side"))
    response = hear(items)

    assert response is not None
    calls = {item.name: item for item in response.output if item.type == "mcp_call"}
    assert calls["look"].output == '{"city":"Paris","price":129.5}'
    assert json.loads(calls["look"].arguments) == {"city": "Paris"}
    assert {name: call.status for name, call in calls.items()} == {
        **dict.fromkeys(("broken", "stuck", "unknown", "refuses"), "failed"),
        **dict.fromkeys(("look", "picture"), "completed"),
    }
    assert response.output_text == "I look.It costs 129.5."
    assert response.output[0].type == "reasoning"
    assert response.usage is not None
    assert response.usage.total_tokens == 30


def test_approvals_are_asked_for_and_answers_to_questions_are_awaited() -> None:
    first, last = items_of(log_of("two_at_once"))
    response = hear(first)
    again = hear(items_of(log_of("two_at_once"), last)[0])
    asked = hear(items_of(log_of("questions"))[0])

    assert response is not None
    assert again is not None
    assert asked is not None
    requests = [item for item in response.output if item.type == "mcp_approval_request"]
    assert {json.loads(item.arguments)["city"] for item in requests} == {"Paris", "Rome"}
    assert response.status == "completed"
    assert again.id != response.id
    assert asked.output_text == "Which colour?"


def test_a_refusal_and_citations_have_their_places() -> None:
    refused = hear(items_of(log_of("refusal"))[0])
    cited = hear(items_of(log_of("provider_side"))[0])

    assert refused is not None
    assert cited is not None
    [message] = [item for item in refused.output if item.type == "message"]
    assert message.content[0].to_dict() == {"type": "refusal", "refusal": "I will not."}
    [message] = [item for item in cited.output if item.type == "message"]
    [text] = message.content
    assert text.type == "output_text"
    assert text.text == "See there."
    assert [a.to_dict().get("url") for a in text.annotations] == [
        "https://example.org/",
        "https://example.org/b",
    ]


class Unclosed(Speech):
    def close(self, message: Any, status: str) -> Any:
        yield from ()


class NeverDone(ResponseMapper):
    """Leaves its texts open."""

    def _begin_outputs(self) -> None:
        super()._begin_outputs()
        self._speech = Unclosed(self._outputs, self.run_id)


class TellsAnError(ResponseMapper):
    """Tells why a call failed as a text."""

    def _end_call(self, call_id: str, call: Any, data: Any) -> Any:
        for item in super()._end_call(call_id, call, data):
            if item["type"] == "response.output_item.done" and "error" in item["item"]:
                item["item"]["error"] = data["error"]
            yield item


class GivesOurCalls(ResponseMapper):
    """Tells the client to run what we run."""

    def _opened(self, call_id: str, call: Any) -> Any:
        if call.output is None:
            yield from self._hand_over(call_id, call)
        return (yield from super()._opened(call_id, call))


class SaysNothingOfErrors(ResponseMapper):
    """Ends in good order whatever happened."""

    def _finish(self, status: str) -> Any:
        return super()._finish("completed")


@pytest.mark.parametrize("kind", [NeverDone, TellsAnError, GivesOurCalls, SaysNothingOfErrors])
def test_a_planted_bug_is_found(kind: type[ResponseMapper]) -> None:
    found = 0
    for name in NAMES:
        try:
            check(log_of(name), kind)
        except Exception:
            found += 1

    assert found


def test_what_was_given_is_told_by_what_became_of_it() -> None:
    found = {}
    for name in ("asks_in_a_tool", "steered", "approved_and_denied"):
        log = log_of(name)
        past = Past(log[-1].seq)
        past.feed(log)
        found[name] = [item for _, item in past.given]
    file = {"kind": "file", "media_type": "text/plain", "bytes": 3, "name": None}
    start = msgspec.structs.replace(log[0], data={**log[0].data, "parts": [file]})
    past = Past(0)
    past.feed([start])

    answer, approval = found["asks_in_a_tool"][1:]
    assert (answer["output"], approval["approve"]) == ("yes", True)
    assert [item["content"][0]["text"] for item in found["steered"]] == [
        *("steered, please", "in euros", "in words"),
    ]
    assert [i["approve"] for i in found["approved_and_denied"][1:]] == [True, False]
    assert past.given[0][1]["content"][1] == {"type": "input_file", "filename": "file"}
