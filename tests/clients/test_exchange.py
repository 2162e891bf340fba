"""Requests and answers, on hosts without sockets: `test_openai` has those."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from flowtrio._core._chunks import Chunk, fold
from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._limits import ModelLimits
from flowtrio.clients import _reading
from flowtrio.clients._host import SLOTS
from flowtrio.clients._request import HostRequest, HttpRequest
from flowtrio.clients._stream import stream_reply
from flowtrio.wire._ollama import decode_completion as decode_lines
from flowtrio.wire._ollama import ollama_decoder
from flowtrio.wire._openai_chat import ChatDecoder, decode_completion
from tests.support.exchanges import KEY, Make, read
from tests.support.fake_host import (
    DONE,
    FINISH,
    USAGE,
    Answer,
    Step,
    answers,
    delta,
    event,
    refuses,
    speaks,
    streams,
    whole,
)

# Answers


async def test_a_stream_gives_chunks_as_they_come(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(delta("a"), 1, delta("b"), 2, FINISH, USAGE, DONE))
    text, error, times = await read(setting.ask())

    assert (text, error, times) == ("ab", None, [0, 1, 3])
    assert [asked.body for asked in setting.fake.asked] == [{"stream": True}]
    setting.check_left()


async def test_a_reply_folds_into_a_whole(autojump_clock: MockClock, make: Make) -> None:
    completion = await fold(make(speaks("a", "b")).ask())

    assert (completion.content, completion.finish_reason) == ("ab", "stop")
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3


async def test_nothing_is_sent_before_the_first_step(autojump_clock: MockClock, make: Make) -> None:
    setting = make(speaks("a"))
    stream = setting.ask()
    await trio.testing.wait_all_tasks_blocked()
    assert setting.fake.asked == []

    await stream.aclose()
    assert setting.model.statistics().requests == 0


async def test_a_whole_answer_is_asked_for_and_read(autojump_clock: MockClock, make: Make) -> None:
    setting = make(answers(whole("ab")))

    assert await setting.text(wants_stream=False) == "ab"
    assert setting.fake.asked[0].body == {"stream": False}


async def test_a_request_can_be_turned_into_one_for_a_whole_answer(
    autojump_clock: MockClock, make: Make
) -> None:
    request = HostRequest(
        ask=lambda stream: HttpRequest("http://models.example", {"stream": stream}),
        decoder=ChatDecoder,
        decode_whole=decode_completion,
    )
    setting = make(answers(whole("ab")))

    assert request.wants_stream
    assert not request.as_whole().wants_stream
    assert (await fold(stream_reply(setting.model, request.as_whole()))).content == "ab"


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_a_host_may_answer_whole_though_it_was_asked_for_a_stream(
    autojump_clock: MockClock, make: Make, content_type: str
) -> None:
    setting = make(answers(whole("ab"), content_type))

    assert await setting.text() == "ab"
    assert len(setting.fake.asked) == 1


async def test_a_body_that_comes_compressed_is_read_all_the_same(
    autojump_clock: MockClock, make: Make
) -> None:
    body = gzip.compress(delta("a") + delta("b") + FINISH + DONE)
    setting = make(streams(body[:30], body[30:], content_encoding="gzip"))

    assert await setting.text() == "ab"
    setting.check_left()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 422, 501])
async def test_a_host_that_cannot_stream_is_asked_without(
    autojump_clock: MockClock, make: Make, status: int
) -> None:
    setting = make(refuses(status, "stream must be false"), answers(whole("ab")))

    assert await setting.text() == "ab"
    assert [asked.body["stream"] for asked in setting.fake.asked] == [True, False]
    assert setting.fake.times == [0, 0]
    assert setting.model.statistics().retries == 0


async def test_a_host_that_refuses_streaming_twice_is_not_asked_for_ever(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(refuses(400, "stream must be false"))
    error = await setting.fails(ProviderError)

    assert error.status == 400
    assert len(setting.fake.asked) == 2


LABELS = ("text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream", "")
OTHER_LABELS = ("text/html", "text/plain", "application/x-ndjson", "application/json")


@pytest.mark.parametrize("content_type", [*LABELS, *OTHER_LABELS])
async def test_a_stream_is_read_whatever_it_is_called(
    autojump_clock: MockClock, make: Make, content_type: str
) -> None:
    frames = b"".join([delta("a"), FINISH, DONE])
    for steps in ([delta("a"), FINISH, DONE], [b"\n", *(bytes([byte]) for byte in frames)]):
        setting = make(Answer(steps=steps, headers={"content-type": content_type}))
        assert await setting.text() == "a"
        assert len(setting.fake.asked) == 1


@pytest.mark.parametrize("content_type", [*LABELS, *OTHER_LABELS])
async def test_a_whole_answer_is_read_whatever_it_is_called(
    autojump_clock: MockClock, make: Make, content_type: str
) -> None:
    body = whole("a")
    for steps in ([body], [b"\xef\xbb\xbf \n", body[:1], body[1:]]):
        setting = make(Answer(steps=steps, headers={"content-type": content_type}))
        assert await setting.text() == "a"
        assert len(setting.fake.asked) == 1


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/x-ndjson"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"Please log in to go on"])
async def test_what_is_neither_is_refused_by_what_it_is_called(
    autojump_clock: MockClock, make: Make, content_type: str, body: bytes
) -> None:
    head = {"content-type": content_type, "x-request-id": "r"}
    setting = make(Answer(steps=[body], headers=head))
    error = await setting.fails(RemoteProtocolError)

    assert str(error) == f"expected content type 'text/event-stream', got {content_type!r}"
    assert error.code == "bad_content_type"
    assert not error.retryable
    assert error.detail == {"status": 200, "request_id": "r"}
    assert len(setting.fake.asked) == 1


async def test_a_next_request_is_read_by_its_own_label(
    autojump_clock: MockClock, make: Make
) -> None:
    """Nothing of how the first answer was read is left."""
    setting = make(streams(DONE), answers(whole("a")))

    assert await setting.text() == "a"
    assert len(setting.fake.asked) == 2


async def test_a_stream_may_have_another_content_type(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), DONE, content_type="application/x-ndjson"))

    assert await setting.text(content_type="application/x-ndjson") == "a"


@pytest.mark.parametrize("content_type", ["", "text/html", "text/event-stream"])
async def test_a_whole_answer_is_json(
    autojump_clock: MockClock, make: Make, content_type: str
) -> None:
    setting = make(answers(whole("a"), content_type))
    error = await setting.fails(RemoteProtocolError, wants_stream=False)

    assert str(error) == f"expected content type 'application/json', got {content_type!r}"


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"choices":[]}', b"[]", b"null"])
async def test_a_whole_answer_that_says_nothing_is_an_error(
    autojump_clock: MockClock, make: Make, body: bytes
) -> None:
    error = await make(answers(body)).fails(RemoteProtocolError, wants_stream=False)

    assert error.detail == {"status": 200, "request_id": None}


async def test_a_whole_answer_has_a_size(
    autojump_clock: MockClock, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reading, "_MAX_WHOLE", len(whole("abc")))
    assert await make(answers(whole("abc"))).text(wants_stream=False) == "abc"

    setting = make(Answer(steps=[whole("abc"), b" ", math.inf], headers=JSON))
    error = await setting.fails(RemoteProtocolError, wants_stream=False)
    assert error.code == "too_large"


JSON = {"content-type": "application/json"}


# Going on


def goes_on(final: Chunk) -> HostRequest | None:
    """What is asked after an answer that became too long."""
    return in_part(2) if final.finish_reason == "length" else None


def in_part(part: int) -> HostRequest:
    return HostRequest(
        ask=lambda stream: HttpRequest("http://models.example", {"part": part}),
        decoder=ChatDecoder,
        decode_whole=decode_completion,
        go_on=goes_on,
    )


PAUSED = event({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "length"}]})


async def test_a_reply_goes_on_in_another_request(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(PAUSED, USAGE, DONE), refuses(503), refuses(503), speaks("b"))
    text, error, _ = await read(stream_reply(setting.model, in_part(1)))

    assert (text, error) == ("ab", None)
    assert [asked.body["part"] for asked in setting.fake.asked] == [1, 2, 2, 2]
    setting.check_left()


async def test_what_went_on_and_then_fails_is_not_tried_again(
    autojump_clock: MockClock, make: Make
) -> None:
    failures = (refuses(400, "no streams"), streams(delta("b"), "ReadError"), answers(b"{}"))
    for last in failures:
        setting = make(streams(PAUSED, DONE), last)
        text, error, _ = await read(stream_reply(setting.model, in_part(1)))

        assert text.startswith("a")
        assert isinstance(error, ProviderError | RemoteProtocolError)
        assert len(setting.fake.asked) == 2
        setting.check_left()


async def test_a_reply_that_goes_on_is_waited_for_as_long_as_between_two_chunks(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(
        streams(PAUSED, DONE), Answer(delay=math.inf), limits=ModelLimits(first_token=9, gap=3)
    )
    text, error, _ = await read(stream_reply(setting.model, in_part(1)))

    assert text == "a"
    assert str(error) == "the model sent nothing for 3 s (gap)"
    setting.check_left()


# Errors


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", None),
        (b"<html>Bad gateway</html>", None),
        (b"no upstream", "no upstream"),
        (b'{"error":{"message":"no such model"}}', "no such model"),
        (b'data: {"error":{"message":"no such model"}}\n\n', "no such model"),
    ],
)
async def test_an_error_tells_what_the_host_said(
    autojump_clock: MockClock, make: Make, body: bytes, words: str | None
) -> None:
    headers = {"x-request-id": "req_1"}
    error = await make(Answer(status=400, steps=[body], headers=headers)).fails(ProviderError)

    said = "the model's host models.example answered 400, expected 200"
    assert str(error) == (said if words is None else f"{said}: {words}")
    assert error.detail == {"status": 400, "request_id": "req_1", "code": None, "words": words}


async def test_an_error_whose_body_breaks_off_is_told_all_the_same(
    autojump_clock: MockClock, make: Make
) -> None:
    error = await make(Answer(status=404, steps=[b"no", "ReadError"])).fails(ProviderError)

    assert error.status == 404


async def test_an_errors_body_is_not_read_for_ever(autojump_clock: MockClock, make: Make) -> None:
    error = await make(Answer(status=404, steps=[b"x" * 40_000] * 2 + [math.inf])).fails(
        ProviderError
    )

    assert error.detail["words"] == "x" * 2000


async def test_a_key_that_the_host_quotes_is_hidden(autojump_clock: MockClock, make: Make) -> None:
    for answer in (
        refuses(401, f"Incorrect key {KEY}."),
        Answer(status=401, steps=[f"Incorrect key {KEY}.".encode()]),
        streams(event({"error": {"message": f"Incorrect key {KEY}."}})),
    ):
        error = await make(answer).fails(ProviderError)
        assert error.detail["words"] == "Incorrect key ***."

    error = await make(answers(b"", f"text/{KEY}")).fails(RemoteProtocolError)
    assert str(error) == "expected content type 'text/event-stream', got 'text/***'"


async def test_an_error_in_the_stream_has_the_answers_status_and_request(
    autojump_clock: MockClock, make: Make
) -> None:
    broken = event({"error": {"message": "overloaded", "type": "overloaded_error"}})
    setting = make(streams(delta("a"), broken, math.inf, x_request_id="req_1"))
    text, error, _ = await read(setting.ask())

    assert text == "a"
    assert isinstance(error, ProviderError)
    assert error.detail == {
        "status": 200,
        "request_id": "req_1",
        "words": "overloaded",
        "code": None,
        "type": "overloaded_error",
    }
    setting.check_left()


async def test_an_error_right_behind_a_chunk_is_told_at_once(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a") + event({"error": "no"}), 20, DONE))
    text, error, times = await read(setting.ask())

    assert (text, times) == ("a", [0])
    assert isinstance(error, ProviderError)
    assert trio.current_time() - setting.fake.asked[0].at < 1


@pytest.mark.parametrize(
    "steps",
    [[delta("a")], [delta("a"), USAGE], [delta("a"), b'data: {"choi']],
    ids=repr,
)
async def test_a_stream_without_its_finish_mark_is_an_error(
    autojump_clock: MockClock, make: Make, steps: Sequence[Step]
) -> None:
    setting = make(streams(*steps), speaks("b"))
    _, error, _ = await read(setting.ask())

    assert isinstance(error, RemoteProtocolError)
    assert error.code == "stream_cut"
    assert len(setting.fake.asked) == 1
    setting.check_left()


async def test_an_event_has_a_size(autojump_clock: MockClock, make: Make) -> None:
    piece = b"x" * 1024 * 1024
    error = await make(streams(b"data: ", *[piece] * 9, math.inf)).fails(RemoteProtocolError)

    assert error.detail == {"status": 200, "request_id": None}


# After the finish mark


@pytest.mark.parametrize(
    ("rest", "seconds", "tokens"),
    [
        ([], 0, None),
        ([USAGE, DONE], 0, 3),
        ([1.5, USAGE, DONE], 1.5, 3),
        ([1.5, USAGE, 1.5, DONE], 3, 3),
        ([math.inf], 5, None),
        ([USAGE, math.inf], 5, 3),
        ([4.5, USAGE, 4.5, DONE], 9, 3),
        ([*[4, b": ping\n\n"] * 20], 30, None),
        ([DONE, b"data: {broken\n\n", event({"error": "late"})], 0, None),
    ],
    ids=[
        *("end", "usage", "late-usage", "slow", "hang", "usage-hang", "slower", "pings"),
        "garbage-behind-the-end",
    ],
)
async def test_what_comes_behind_the_finish_mark_is_waited_for(
    autojump_clock: MockClock, make: Make, rest: Sequence[Step], seconds: float, tokens: int | None
) -> None:
    setting = make(streams(delta("a"), FINISH, *rest))
    begun = trio.current_time()
    completion = await fold(setting.ask())

    assert completion.content == "a"
    assert completion.usage is None if tokens is None else completion.usage.completion_tokens == 3
    assert trio.current_time() - begun == pytest.approx(seconds, abs=0.1)
    setting.check_left()


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        ([b"data: {broken\n\n", DONE], "bad_stream"),
        ([event({"error": "late"}), DONE], "stream_error"),
        ([b"data: " + b"x" * 9 * 1024 * 1024, math.inf], "too_large"),
        ([b'data: {"choices"'], "stream_cut"),
        (["RemoteProtocolError"], "stream_cut"),
    ],
    ids=["garbage", "error", "huge", "cut", "broken"],
)
async def test_what_goes_wrong_behind_the_finish_mark_is_told(
    autojump_clock: MockClock, make: Make, rest: Sequence[Step], code: str
) -> None:
    setting = make(streams(delta("a"), FINISH, *rest))
    with pytest.raises((ProviderError, RemoteProtocolError)) as caught:
        await fold(setting.ask())

    assert caught.value.code == code
    setting.check_left()


async def test_silence_that_ends_a_reply_is_a_line_in_the_log(
    autojump_clock: MockClock, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    assert await make(streams(delta("a"), FINISH, math.inf)).text() == "a"

    [line] = [record.getMessage() for record in caplog.records if record.name == "flowtrio"]
    assert line.startswith("the model's host models.example was silent for 5.0 s after its finish")


async def test_a_stall_that_is_limited_to_less_does_not_come_before_the_end(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), FINISH, math.inf), limits=ModelLimits(gap=0.5))

    assert await setting.text() == "a"


async def test_a_reply_that_said_nothing_yet_is_waited_for_while_its_host_pings(
    autojump_clock: MockClock, make: Make
) -> None:
    pings: list[Step] = [4, b": ping\n\n"] * 10
    setting = make(streams(FINISH, *pings, math.inf))
    begun = trio.current_time()

    assert await setting.text() == ""
    assert trio.current_time() - begun == pytest.approx(45, abs=0.1)


@pytest.mark.parametrize("steps", [["ReadError"], [USAGE, "RemoteProtocolError"]], ids=repr)
async def test_a_cut_after_a_finish_reason_is_told(
    autojump_clock: MockClock, make: Make, steps: Sequence[Step]
) -> None:
    setting = make(streams(delta("a"), FINISH, *steps))
    text, error, _ = await read(setting.ask())

    assert text == "a"
    assert isinstance(error, RemoteProtocolError)
    assert (error.code, error.retryable) == ("stream_cut", True)
    assert len(setting.fake.asked) == 1
    setting.check_left()


async def test_a_host_that_does_not_end_after_done_is_left_soon(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), FINISH, DONE, math.inf))
    begun = trio.current_time()
    text, error, _ = await read(setting.ask())

    assert (text, error) == ("a", None)
    assert 0 < trio.current_time() - begun <= 0.05
    setting.check_left()


# Slots


async def test_requests_beyond_the_slots_wait_for_one(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), math.inf))
    held = [setting.ask() for _ in range(SLOTS)]
    for stream in held:
        await anext(stream)
    words: list[Chunk] = []

    async def wait() -> None:
        late = setting.ask()
        words.append(await anext(late))
        await late.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert setting.model.statistics().waiting_replies == 1
        assert setting.model.statistics().open_replies == SLOTS
        assert len(setting.fake.asked) == SLOTS
        await held.pop().aclose()

    assert words[0].content == "a"
    assert setting.fake.most_open == SLOTS
    for stream in held:
        await stream.aclose()
    setting.check_left()


async def test_a_request_that_waits_to_ask_again_gives_its_slot_away(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(refuses(503, retry_after="50"), speaks("a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setting.text)
        await trio.testing.wait_all_tasks_blocked()

        assert setting.model.statistics().open_replies == 0


async def test_a_cancelled_wait_for_a_slot_leaves_nothing(
    autojump_clock: MockClock, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtrio.clients._host.SLOTS", 1)
    setting = make(streams(delta("a"), math.inf))
    first = setting.ask()
    await anext(first)
    with trio.move_on_after(1):
        await setting.text()
    assert setting.model.statistics().waiting_replies == 0

    await first.aclose()
    setting.check_left()


# Streams that are called JSON


async def test_an_event_stream_that_is_called_json_is_read_and_not_paid_for_twice(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(b" \n", delta("a"), 5, delta("b"), FINISH, DONE, content_type=JSON_TYPE))
    text, error, times = await read(setting.ask())

    assert (text, error, times) == ("ab", None, [0, 5, 5])
    assert len(setting.fake.asked) == 1
    setting.check_left()


async def test_one_that_fails_is_told_and_not_asked_for_again(
    autojump_clock: MockClock, make: Make
) -> None:
    for steps in ([delta("a")], [delta("a"), "ReadError"], [b"data: {broken\n\n"]):
        setting = make(streams(*steps, content_type=JSON_TYPE), answers(whole("b")))
        error = await setting.fails(RemoteProtocolError)

        assert error.code in ("stream_cut", "bad_stream")
        assert len(setting.fake.asked) == 1


async def test_lines_that_are_called_json_are_read(autojump_clock: MockClock, make: Make) -> None:
    lines = [{"message": {"content": "a"}}, {"message": {"content": "b"}, "done": True}]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    for tail, text in ((b"\n", "ab"), (b"", "ab")):
        setting = make(answers(body + tail))
        given = {"decoder": ollama_decoder, "decode_whole": decode_lines}
        assert await setting.text(**given, content_type="application/x-ndjson") == text
        assert len(setting.fake.asked) == 1


JSON_TYPE = "application/json"
