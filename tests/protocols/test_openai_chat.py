"""Chat completions of logs of every ending, read by OpenAI's own library."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest
from openai import LengthFinishReasonError
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from flowtrio import AgentEvent, EventType
from flowtrio.protocols._openai._chat import AGAIN, BREAK, OVER, ChatMapper, fold
from flowtrio.serving.http._segments import Segment, Waits

from .logs import ALL, NAMES, any_log, log_of

T = EventType
CLIENT_TOOLS = frozenset({"where", "pick"})


class Unlike(AssertionError):
    """What was told is not what the log has."""


def items_of(
    log: Sequence[AgentEvent], after: int = -1, kind: type[ChatMapper] = ChatMapper, **options: Any
) -> list[dict[str, Any]]:
    """What a segment of a log is told as, event by event, until it ends."""
    items: list[dict[str, Any]] = []

    def keep(item: dict[str, Any]) -> bytes:
        items.append(item)
        return b""

    mapper = kind(
        run_id=log[0].run_id, model="m", client_tools=CLIENT_TOOLS, shows_usage=True, **options
    )
    waits = Waits(is_attended=False)
    segment = Segment(mapper=mapper, encode=keep, after=after, waits=waits, shows_errors=True)
    for event in log:
        segment.feed([event])
        if segment.is_over:
            assert event.seq == segment.last
            break
    return items


@attrs.define
class Heard:
    """What a client makes of the items."""

    completion: Any = None
    error: dict[str, Any] | None = None
    is_over: bool = False
    chunks: list[ChatCompletionChunk] = attrs.field(factory=list)

    @property
    def text(self) -> str:
        return "".join(c.choices[0].delta.content or "" for c in self.chunks if c.choices)

    @property
    def reasoning(self) -> str:
        deltas = [chunk.choices[0].delta for chunk in self.chunks if chunk.choices]
        return "".join(getattr(delta, "reasoning_content", "") for delta in deltas)

    @property
    def calls(self) -> list[Any]:
        return [c for chunk in self.chunks if chunk.choices for c in _calls(chunk)]


def _calls(chunk: ChatCompletionChunk) -> list[Any]:
    return chunk.choices[0].delta.tool_calls or []


def hear(items: Sequence[dict[str, Any]]) -> Heard:
    """Read items strictly; nothing may follow an end."""
    heard, state = Heard(), ChatCompletionStreamState()
    for item in items:
        assert not heard.is_over
        assert heard.error is None
        if item is OVER:
            heard.is_over = True
        elif "error" in item:
            assert set(item["error"]) == {"message", "type", "param", "code"}
            assert item["error"]["message"]
            heard.error = item["error"]
        else:
            chunk = ChatCompletionChunk.model_validate_json(json.dumps(item), strict=True)
            state.handle_chunk(chunk)
            heard.chunks.append(chunk)
    if heard.is_over:
        try:
            heard.completion = state.get_final_completion()
        except LengthFinishReasonError as exc:
            heard.completion = exc.completion
    return heard


# What the log has, found without the mapper


def texts_of(log: Sequence[AgentEvent]) -> list[str]:
    """The texts of the root's messages, in the order in which they began."""
    began: dict[str, str] = {}
    for event in log:
        if event.agent != "root":
            continue
        part = event.data["part"].get("type") if event.type is T.MESSAGE_PART else None
        is_text = event.type is T.MESSAGE_CHUNK and event.data["chunk"]
        if is_text or part in ("refusal", "citation"):
            began.setdefault(event.data["message_id"], "")
        elif event.type is T.MESSAGE_COMPLETE and event.data["message_id"] in began:
            began[event.data["message_id"]] = event.data["content"]
    return [text for text in began.values() if text]


def answer_in(log: Sequence[AgentEvent]) -> str:
    texts = texts_of(log)
    said = [
        e.data["content"]
        for e in log
        if e.type is T.MESSAGE_COMPLETE and e.agent == "root" and e.data["content"]
    ]
    result = log[-1].data["result"] if log[-1].type is T.DONE else None
    if isinstance(result, str) and result.strip() and result not in said[-1:]:
        texts.append(result)
    elif result is not None and not isinstance(result, str) and not said:
        texts.append(json.dumps(result, separators=(",", ":"), ensure_ascii=False))
    return BREAK.join(texts)


def ends_in(log: Sequence[AgentEvent]) -> str:
    return str(log[-1].data["status"])


def check(log: Sequence[AgentEvent], kind: type[ChatMapper] = ChatMapper) -> None:
    """Hold what is told of a log, in all its answers, against the log."""
    for is_held in (True, False):
        answers = list(answers_of(log, kind, is_held=is_held))
        last = answers[-1]
        if (ends_in(log) == "completed") != (last.error is None and last.is_over):
            raise Unlike(f"it ended {ends_in(log)}, told {last.error}")
        text = BREAK.join(filter(None, (heard.text for heard in answers)))
        is_reset = any(event.type is T.MESSAGE_RESET for event in log)
        if (text != answer_in(log)) if is_held or not is_reset else not _ends_like(text, log):
            raise Unlike(f"text {text!r}, expected {answer_in(log)!r}")
        told = [(call.id, call.function.name) for heard in answers for call in heard.calls]
        own = [
            (f"{e.run_id}:{e.data['call_id']}", e.data["tool_name"])
            for e in log
            if e.type is T.TOOL_CALL_START and e.data["tool_name"] in CLIENT_TOOLS
        ]
        if told != own:
            raise Unlike(f"calls {told}, expected {own}")
        if ends_in(log) == "completed":
            _check_usage(log, answers)


def _ends_like(text: str, log: Sequence[AgentEvent]) -> bool:
    last = (texts_of(log) or [""])[-1]
    return last in text


def _check_usage(log: Sequence[AgentEvent], answers: Sequence[Heard]) -> None:
    told = [heard.completion.usage for heard in answers]
    usage = log[-1].data["usage"]
    assert sum(u.prompt_tokens for u in told) == usage["prompt_tokens"]
    assert sum(u.completion_tokens for u in told) == usage["completion_tokens"]
    assert all(u.total_tokens == u.prompt_tokens + u.completion_tokens for u in told)


def answers_of(
    log: Sequence[AgentEvent], kind: type[ChatMapper] = ChatMapper, **options: Any
) -> Iterator[Heard]:
    """What each answer of a log is heard as: one more where it waits for the client."""
    after = -1
    while True:
        items = items_of(log, after, kind, **options)
        heard = hear(items)
        yield heard
        if not heard.calls:
            return
        waits = Waits(is_attended=False)
        *_, after = (e.seq for e in log if not waits.feed(e) and _is_told(waits, heard))


def _is_told(waits: Waits, heard: Heard) -> bool:
    """Whether a run waits for just the calls that an answer has told."""
    asked = [e.data["call_id"] for e in waits.questions.values()]
    return waits.for_people and asked == [c.id.rpartition(":")[2] for c in heard.calls]


@pytest.mark.parametrize("name", ALL)
def test_a_log_is_one_completion_or_an_error(name: str) -> None:
    check(any_log(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_answer_is_the_same(name: str) -> None:
    items = items_of(log_of(name), is_held=True)
    if items[-1] is not OVER:
        return
    whole = fold(items)
    read = ChatCompletion.model_validate_json(json.dumps(whole), strict=True)
    streamed = hear(items)

    message, other = read.choices[0].message, streamed.completion.choices[0].message
    assert (message.content or "") == (other.content or "") == streamed.text
    assert message.refusal == other.refusal
    assert len(message.tool_calls or []) == len(other.tool_calls or [])
    assert read.choices[0].finish_reason == streamed.completion.choices[0].finish_reason
    assert read.usage == streamed.completion.usage


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_of_a_cut_log_is_how_the_whole_begins(name: str) -> None:
    log = log_of(name)
    whole = items_of(log)
    for place in range(1, len(log), 3):
        cut = items_of(log[:place])
        mapper = ChatMapper(run_id="r", model="m")
        for event in log[:place]:
            mapper.feed(event)
        broken = mapper.fail("replay_gap", "it is gone")

        assert cut == whole[: len(cut)] or cut[-1] is OVER
        hear([*(item for item in cut if item is not OVER and "error" not in item), *broken])
        assert broken[0]["error"]["code"] == "replay_gap"


def test_a_second_answer_of_a_run_tells_what_follows_and_its_own_usage() -> None:
    first, second, third = answers_of(log_of("other_side"))

    assert [heard.text for heard in (first, second, third)] == ["Let me ask. ", "", "There."]
    assert [c.function.name for c in first.calls] == ["where", "pick"]
    assert json.loads(first.calls[1].function.arguments) == {"of": ["a", "b"]}
    assert [c.id for c in second.calls] == ["other_side:c4"]
    assert first.completion.choices[0].finish_reason == "tool_calls"
    assert third.completion.choices[0].finish_reason == "stop"
    assert len({heard.completion.id for heard in (first, second, third)}) == 3
    assert {heard.completion.usage.completion_tokens for heard in (first, second, third)} == {5}


def test_calls_that_we_run_are_lines_of_reasoning_or_nothing() -> None:
    log = log_of("tools_side_by_side")
    shown = hear(items_of(log))
    hidden = hear(items_of(log, shows_tools=False))

    assert shown.reasoning.startswith('Let me see. \n[look {"city":"Paris"}]\n[broken {}]\n')
    assert hidden.reasoning == "Let me see. "
    assert shown.calls == []
    assert "[look" in hear(items_of(log_of("nested"))).reasoning


def test_reasoning_of_two_messages_is_apart() -> None:
    assert hear(items_of(log_of("thinks_between"), shows_tools=False)).reasoning == "ace\n\nace"


def test_a_refusal_and_citations_have_their_places() -> None:
    refused = hear(items_of(log_of("refusal"))).completion.choices[0].message
    whole = fold(items_of(log_of("provider_side"), is_held=True))
    read = ChatCompletion.model_validate(whole)
    cited = read.choices[0].message.annotations or []

    assert (refused.refusal, refused.content) == ("I will not.", "")
    assert [c.url_citation.url for c in cited] == ["https://example.org/", "https://example.org/b"]
    assert [c.url_citation.title for c in cited] == ["", "B"]


def test_what_is_taken_back_is_held_or_told_to_begin_again() -> None:
    log = log_of("begins_anew")
    held, live = hear(items_of(log, is_held=True)), hear(items_of(log))

    assert held.text == "Right. \n\nOslo."
    assert live.text == f"Wro{AGAIN}ng{AGAIN}Right. \n\nOslo."


@pytest.mark.parametrize(
    ("name", "code", "kind"),
    [
        ("model_fails", "model_failed", "server_error"),
        ("withheld", "content_filter", "invalid_request_error"),
        ("cancelled", "cancelled", "server_error"),
        ("deadline", "deadline_exceeded", "server_error"),
    ],
)
def test_what_gives_no_answer_is_an_error(name: str, code: str, kind: str) -> None:
    heard = hear(items_of(log_of(name)))

    assert heard.error is not None
    assert (heard.error["code"], heard.error["type"]) == (code, kind)


# Planted bugs


class Forgets(ChatMapper):
    """Leaves out the first piece of each message."""

    def _say(self, message_id: str, delta: dict[str, Any]) -> Any:
        is_first = message_id not in self._open
        return super()._say(message_id, {"content": ""} if is_first else delta)


class GivesOurCalls(ChatMapper):
    """Tells the client to run what we have run."""

    def _start(self, data: dict[str, Any]) -> Any:
        told = super()._start(data)
        call = {"index": 0, **self._calls[data["call_id"]]}
        return told if not told else [self._chunk({"tool_calls": [call]})]


class NoIndex(ChatMapper):
    """Leaves out what the library needs."""

    def _chunk(self, delta: Any, finish_reason: Any = None) -> Any:
        chunk = super()._chunk(delta, finish_reason)
        chunk["choices"] = [{"delta": delta, "finish_reason": finish_reason}]
        return chunk


class SaysNothingOfErrors(ChatMapper):
    """Ends in good order whatever happened."""

    def _end(self, data: dict[str, Any]) -> Any:
        self.ending.failure = None
        return super()._end(data)


class Interleaves(ChatMapper):
    """Tells two texts at once."""

    def _say(self, message_id: str, delta: dict[str, Any]) -> Any:
        return [self._chunk(delta)]


@pytest.mark.parametrize(
    "kind", [Forgets, GivesOurCalls, NoIndex, SaysNothingOfErrors, Interleaves]
)
def test_a_planted_bug_is_found(kind: type[ChatMapper]) -> None:
    found = 0
    for name in NAMES:
        try:
            check(log_of(name), kind)
        except Exception:
            found += 1

    assert found


def test_two_texts_at_once_are_told_one_after_the_other() -> None:
    def event(seq: int, type: EventType, **data: Any) -> AgentEvent:
        return AgentEvent(type, data, seq, "r", "root", 0.0)

    def chunk(seq: int, message_id: str, text: str) -> AgentEvent:
        return event(seq, T.MESSAGE_CHUNK, message_id=message_id, chunk=text)

    def complete(seq: int, message_id: str, text: str) -> AgentEvent:
        data = {"message_id": message_id, "content": text, "finish_reason": "stop", "usage": None}
        return event(seq, T.MESSAGE_COMPLETE, **data)

    log = [
        *itertools.starmap(chunk, [(1, "m1", "a"), (2, "m2", "x"), (3, "m1", "b"), (4, "m2", "y")]),
        *itertools.starmap(complete, [(5, "m2", "xy"), (6, "m1", "ab")]),
    ]
    mapper = ChatMapper(run_id="r", model="m")
    told = [item["choices"][0]["delta"]["content"] for e in log for item in mapper.feed(e)]

    assert "".join(told) == "ab\n\nxy"
