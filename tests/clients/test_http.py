"""Requests, retries, limits and leaving, on hosts without sockets: `test_openai` has those."""

from __future__ import annotations

import gc
import gzip
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from types import ModuleType
from typing import Any

import attrs
import httpx
import httpx2
import pytest
import trio
from trio.testing import MockClock

from flowtrio._core._chunks import Chunk
from flowtrio._core._exceptions import DeadlineExceeded, ProviderError, RemoteProtocolError
from flowtrio._core._limits import ModelLimits
from flowtrio.clients import _http
from flowtrio.clients._host import SLOTS, HttpRequest, ModelHost
from flowtrio.clients._http import (
    MAX_REQUESTS,
    CompletionStream,
    ModelRequest,
    fold,
    stream_reply,
)
from flowtrio.wire._openai_chat import ChatDecoder, decode_completion
from tests.support.fake_host import (
    DONE,
    FINISH,
    USAGE,
    Answer,
    FakeHost,
    Step,
    answers,
    delta,
    event,
    fails,
    refuses,
    speaks,
    streams,
    whole,
)

KEY = "sk-canary-8531"

NOW = 1_700_000_000.0
"""The wall clock's time in all tests."""


@pytest.fixture(params=[httpx, httpx2], ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@attrs.define(eq=False)
class Setting:
    """A host that gives these answers, and what a client knows of it."""

    fake: FakeHost
    model: ModelHost

    def ask(self, **changes: Any) -> CompletionStream:
        """Begin a reply."""
        request = ModelRequest(
            ask=lambda stream: HttpRequest("http://models.example/v1/chat", {"stream": stream}),
            decoder=ChatDecoder,
            decode_whole=decode_completion,
        )
        return stream_reply(self.model, attrs.evolve(request, **changes))

    async def text(self, **changes: Any) -> str:
        """Ask for a reply and give its text."""
        return (await fold(self.ask(**changes))).content

    async def fails(self, kind: type[Exception], **changes: Any) -> Any:
        """Ask for a reply that fails in this way; nothing of it may be left."""
        with pytest.raises(kind) as caught:
            await fold(self.ask(**changes))
        self.check_left()
        return caught.value

    def check_left(self) -> None:
        assert self.fake.open_bodies == 0
        assert self.model.statistics().open_replies == 0
        assert self.model.statistics().waiting_replies == 0


Make = Callable[..., Setting]


@pytest.fixture
def make(library: ModuleType) -> Make:
    def make(*answers: Answer, limits: ModelLimits | None = None, jitter: float = 1) -> Setting:
        fake = FakeHost(library, answers)
        model = ModelHost.of(
            "http://models.example/v1",
            headers={"authorization": f"Bearer {KEY}"},
            key=KEY,
            http_client=fake.http_client(),
            limits=limits,
        )
        model.jitter = lambda: jitter
        begun = trio.current_time()
        model.wall_clock = lambda: NOW + trio.current_time() - begun
        return Setting(fake, model)

    return make


async def read(stream: CompletionStream) -> tuple[str, Exception | None, list[float]]:
    """What was said, how it failed, and when each chunk came, from the first step on."""
    begun = trio.current_time()
    text, times = "", []
    try:
        async for chunk in stream:
            text += chunk.content
            times.append(round(trio.current_time() - begun, 3))
    except Exception as exc:
        return text, exc, times
    return text, None, times


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
    request = ModelRequest(
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


@pytest.mark.parametrize(
    ("content_type", "is_taken"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("Text/Event-Stream", True),
        ("", True),
        ("text/html", False),
        ("text/plain", False),
        ("application/x-ndjson", False),
    ],
)
async def test_the_content_type_of_a_stream_is_checked(
    autojump_clock: MockClock, make: Make, content_type: str, is_taken: bool
) -> None:
    steps = [delta("a"), FINISH, DONE]
    setting = make(Answer(steps=steps, headers={"content-type": content_type, "x-request-id": "r"}))
    if is_taken:
        assert await setting.text() == "a"
        return
    error = await setting.fails(RemoteProtocolError)

    assert str(error) == f"expected content type 'text/event-stream', got {content_type!r}"
    assert error.code == "bad_content_type"
    assert not error.retryable
    assert error.detail == {"status": 200, "request_id": "r"}
    assert len(setting.fake.asked) == 1


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
    monkeypatch.setattr(_http, "_MAX_WHOLE", len(whole("abc")))
    assert await make(answers(whole("abc"))).text(wants_stream=False) == "abc"

    setting = make(Answer(steps=[whole("abc"), b" ", math.inf], headers=JSON))
    error = await setting.fails(RemoteProtocolError, wants_stream=False)
    assert error.code == "too_large"


JSON = {"content-type": "application/json"}


# Asking again


FAILURES = [
    refuses(429),
    refuses(500),
    refuses(502),
    refuses(503),
    refuses(529),
    Answer(status=503, headers={}),
    answers(b"<html>busy</html>", "text/html", 503),
    fails("ConnectError"),
    fails("ReadError"),
    fails("WriteError"),
    fails("RemoteProtocolError"),
    streams("ReadError"),
    streams("RemoteProtocolError"),
    streams(b": wait\n\n", "ReadError"),
    streams(delta("")[:20], "RemoteProtocolError"),
]
"""What happens to hosts now and then."""


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_what_happens_before_the_first_token_is_tried_again(
    autojump_clock: MockClock, make: Make, failure: Answer
) -> None:
    setting = make(failure, speaks("a", "b"))

    assert await setting.text() == "ab"
    assert setting.fake.times == [0, 0.5]
    assert setting.model.statistics().requests == 2
    assert setting.model.statistics().retries == 1
    setting.check_left()


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_there_are_three_requests_at_most(
    autojump_clock: MockClock, make: Make, failure: Answer
) -> None:
    setting = make(failure)
    error = await setting.fails(ProviderError)

    assert setting.fake.times == [0, 0.5, 1.5]
    assert MAX_REQUESTS == 3
    assert error.retryable


async def test_a_request_whose_whole_answer_fails_is_sent_again(
    autojump_clock: MockClock, make: Make
) -> None:
    cut = Answer(steps=[b'{"choices', "ReadError"], headers=JSON)
    setting = make(refuses(503), cut, answers(whole("ab")))

    assert await setting.text(wants_stream=False) == "ab"
    assert [asked.body["stream"] for asked in setting.fake.asked] == [False] * 3
    assert setting.fake.times == [0, 0.5, 1.5]


async def test_waits_are_jittered_and_bounded(
    autojump_clock: MockClock, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = make(refuses(503), jitter=0.25)
    await setting.fails(ProviderError)
    assert setting.fake.times == [0, 0.125, 0.375]

    monkeypatch.setattr(_http, "MAX_REQUESTS", 8)
    setting = make(refuses(503))
    await setting.fails(ProviderError)
    waits = [b - a for a, b in zip(setting.fake.times, setting.fake.times[1:], strict=False)]
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0"}, 0),
        ({"retry_after_ms": "250"}, 0.25),
        ({"retry_after": format_datetime(datetime.fromtimestamp(NOW + 12, UTC), usegmt=True)}, 12),
        ({"retry_after": format_datetime(datetime.fromtimestamp(NOW - 12, UTC), usegmt=True)}, 0),
        ({"retry_after": "soon"}, 0.5),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_is_the_one_that_the_host_asks_for(
    autojump_clock: MockClock, make: Make, status: int, headers: dict[str, str], wait: float
) -> None:
    setting = make(refuses(status, **headers), speaks("a"))

    assert await setting.text() == "a"
    assert setting.fake.times == [0, wait]


@pytest.mark.parametrize("wait", ["60", "61", "86400"])
async def test_a_wait_longer_than_a_first_token_may_take_is_told_at_once(
    autojump_clock: MockClock, make: Make, wait: str
) -> None:
    begun = trio.current_time()
    error = await make(refuses(429, retry_after=wait)).fails(ProviderError)

    assert trio.current_time() == begun
    assert (error.status, error.retry_after) == (429, float(wait))
    assert error.retryable


async def test_the_longest_wait_is_just_below_that_of_a_first_token(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(refuses(429, retry_after="4"), speaks("a"), limits=ModelLimits(first_token=4.5))

    assert await setting.text() == "a"


@pytest.mark.parametrize(
    "failure",
    [
        *map(refuses, (302, 400, 401, 402, 403, 404, 413, 422)),
        answers(b'{"error":{"code":"insufficient_quota","message":"pay"}}', status=429),
        fails("ConnectError", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"),
    ],
    ids=repr,
)
async def test_what_would_fail_again_is_not_tried_again(
    autojump_clock: MockClock, make: Make, failure: Answer
) -> None:
    setting = make(failure)
    error = await setting.fails(ProviderError)

    assert len(setting.fake.asked) == 1
    assert not error.retryable


@pytest.mark.parametrize("error", ["ReadError", "RemoteProtocolError"])
async def test_nothing_is_tried_again_after_the_first_token(
    autojump_clock: MockClock, make: Make, error: str
) -> None:
    setting = make(streams(delta("a"), error), speaks("b"))
    text, exc, _ = await read(setting.ask())

    assert text == "a"
    assert isinstance(exc, RemoteProtocolError)
    assert str(exc) == f"the model's stream broke off before its finish mark: {error}"
    assert (exc.code, exc.retryable) == ("stream_cut", True)
    assert type(exc.__cause__).__name__ == error
    assert len(setting.fake.asked) == 1
    setting.check_left()


async def test_who_is_never_reached_is_named_with_the_librarys_reason(
    autojump_clock: MockClock, make: Make
) -> None:
    error = await make(fails("ConnectError", f"no route for {KEY}")).fails(ProviderError)

    assert str(error) == "the model's host models.example could not be reached: ConnectError"
    assert (error.code, error.status, error.detail) == ("connection_failed", None, None)
    assert str(error.__cause__) == "no route for ***"


async def test_another_kind_of_exception_is_not_ours_to_mend(
    autojump_clock: MockClock, make: Make
) -> None:
    def ask(stream: bool) -> HttpRequest:
        raise ZeroDivisionError

    setting = make(speaks("a"))
    with pytest.raises(ZeroDivisionError):
        await setting.text(ask=ask)
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

    assert str(error) == "the model's host models.example answered 400, expected 200"
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
    [[], [b": nothing\n\n"], [delta("a")], [delta("a"), USAGE], [delta("a"), b'data: {"choi']],
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
        ([math.inf], 2, None),
        ([USAGE, math.inf], 2, 3),
        (["ReadError"], 0, None),
        ([USAGE, "RemoteProtocolError"], 0, 3),
        ([b"data: {broken\n\n", DONE], 0, None),
        ([event({"error": "late"}), DONE], 0, None),
        ([b"data: " + b"x" * 9 * 1024 * 1024, math.inf], 2, None),
    ],
    ids=[
        *("end", "usage", "late-usage", "slow", "hang", "usage-hang", "cut", "usage-cut"),
        *("garbage", "error", "huge"),
    ],
)
async def test_what_comes_after_the_finish_mark_cannot_fail_the_reply(
    autojump_clock: MockClock, make: Make, rest: Sequence[Step], seconds: float, tokens: int | None
) -> None:
    setting = make(streams(delta("a"), FINISH, *rest))
    begun = trio.current_time()
    completion = await fold(setting.ask())

    assert completion.content == "a"
    assert completion.usage is None if tokens is None else completion.usage.completion_tokens == 3
    assert trio.current_time() - begun == pytest.approx(seconds, abs=0.1)
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


# Limits


@pytest.mark.parametrize(
    ("answer", "name", "seconds"),
    [
        (Answer(delay=math.inf), "first_token", 6),
        (streams(math.inf), "first_token", 6),
        (streams(delta("a"), math.inf), "gap", 3),
        (streams(delta("a"), 2.9, delta("b"), 3.1, DONE), "gap", 5.9),
    ],
    ids=["head", "body", "second", "third"],
)
async def test_waiting_for_the_host_is_limited(
    autojump_clock: MockClock, make: Make, answer: Answer, name: str, seconds: float
) -> None:
    setting = make(answer, limits=ModelLimits(first_token=6, gap=3))
    begun = trio.current_time()
    _, error, _ = await read(setting.ask())

    assert isinstance(error, DeadlineExceeded)
    assert error.deadline == name
    assert (
        str(error) == f"the model sent nothing for {6 if name == 'first_token' else 3} s ({name})"
    )
    assert trio.current_time() - begun == pytest.approx(seconds)
    setting.check_left()


async def test_a_model_that_thinks_is_waited_for(autojump_clock: MockClock, make: Make) -> None:
    setting = make(
        Answer(delay=5, steps=[5, delta("a"), 2, delta("b"), 2, DONE]),
        limits=ModelLimits(first_token=6, gap=3),
    )

    assert await setting.text() == "ab"


async def test_a_slow_reader_is_no_slow_model(autojump_clock: MockClock, make: Make) -> None:
    setting = make(speaks("a", "b"), limits=ModelLimits(first_token=6, gap=3))
    words = []
    async for chunk in setting.ask():
        words.append(chunk.content)
        await trio.sleep(60)

    assert "".join(words) == "ab"


async def test_a_caller_that_watches_itself_switches_the_limits_off(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(Answer(delay=100, steps=[100, delta("a"), 100, FINISH, DONE]))
    stream = setting.ask()
    assert stream.limits == ModelLimits()
    stream.limits = None
    text, error, _ = await read(stream)

    assert (text, error) == ("a", None)


async def test_a_connection_that_is_not_made_in_time_is_told_by_name(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(fails("ConnectTimeout", delay=4), limits=ModelLimits(connect=4))
    error = await setting.fails(DeadlineExceeded)

    assert error.deadline == "connect"
    assert str(error) == "no connection to the model's host models.example within 4 s (connect)"
    assert setting.fake.asked[0].timeout["connect"] == 4
    assert len(setting.fake.asked) == 1


# Reading


async def test_a_reply_that_is_over_stays_over(autojump_clock: MockClock, make: Make) -> None:
    stream = make(speaks("a")).ask()
    assert [chunk.is_final async for chunk in stream] == [False, True]

    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_reply_has_one_reader_at_a_time(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(1, delta("a"), DONE))
    stream = setting.ask()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, stream)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(stream)
        # Nor does a second one that is cancelled close it under the first.
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)

    setting.check_left()


@pytest.mark.parametrize("kind", ["failed", "closed", "cancelled"])
async def test_a_reply_that_ended_early_is_closed(
    autojump_clock: MockClock, make: Make, kind: str
) -> None:
    setting = make(streams(delta("a") + delta("b"), *(["ReadError"] if kind == "failed" else [9])))
    stream = setting.ask()
    assert (await anext(stream)).content == "a"
    if kind == "closed":
        await stream.aclose()
    else:
        await anext(stream)
        with trio.move_on_after(1), pytest.raises(RemoteProtocolError):
            await anext(stream)

    with pytest.raises(trio.ClosedResourceError, match="closed before its end"):
        await anext(stream)
    await stream.aclose()
    setting.check_left()


async def test_reading_can_always_be_cancelled(autojump_clock: MockClock, make: Make) -> None:
    """Chunks that lie ready included: else a reader of many could not be stopped."""
    setting = make(streams(delta("a") + delta("b"), DONE))
    stream = setting.ask()
    await anext(stream)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)

    assert scope.cancelled_caught
    assert (await anext(stream)).content == "b"
    await stream.aclose()


async def test_leaving_a_block_closes_the_reply(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(delta("a"), math.inf))
    async with setting.ask() as stream:
        assert (await anext(stream)).content == "a"
        assert setting.fake.open_bodies == 1

    setting.check_left()


async def steps_of(setting: Setting) -> str:
    """A reply with everything that may happen on its way."""
    async with setting.ask() as stream:
        return "".join([chunk.content async for chunk in stream])


WAYS = (
    [refuses(503), fails("ConnectError"), speaks("a", "b")],
    [refuses(400, "cannot stream"), answers(whole("ab"))],
    [streams("ReadError"), streams(delta("a"), 1, delta("b"), 1, FINISH, 1, USAGE, 1, DONE, 1)],
)


async def run_cancelled(body: Callable[[], Awaitable[str]], step: int) -> str | None:
    """Run *body*, cancelled before its task's n-th step; gives its result if it came to that."""
    task, count = trio.lowlevel.current_task(), 0
    scope = trio.CancelScope()

    class Cancel(trio.abc.Instrument):
        def before_task_step(self, stepped: trio.lowlevel.Task) -> None:
            nonlocal count
            count += stepped is task
            if count == step:
                scope.cancel()

    cancel = Cancel()
    trio.lowlevel.add_instrument(cancel)
    result = None
    try:
        with scope:
            result = await body()
    finally:
        trio.lowlevel.remove_instrument(cancel)
    return result


@pytest.mark.parametrize("way", WAYS, ids=["retries", "whole", "slow"])
async def test_a_reply_can_be_cancelled_at_each_of_its_steps(
    autojump_clock: MockClock, make: Make, way: Sequence[Answer]
) -> None:
    cancelled = 0
    for step in range(1, 1000):
        setting = make(*way)
        result = await run_cancelled(lambda setting=setting: steps_of(setting), step)
        setting.check_left()
        if result is not None:
            break
        cancelled += 1

    assert result == "ab"
    assert cancelled > 5


# Leaving without a word


async def test_a_reply_that_is_dropped_is_closed(autojump_clock: MockClock, make: Make) -> None:
    setting = make(streams(delta("a"), math.inf))
    async for _ in setting.ask():
        break
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    setting.check_left()


async def test_a_reply_may_be_dropped_in_another_thread(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), math.inf))
    holder = [setting.ask()]
    await anext(holder[0])
    await trio.to_thread.run_sync(holder.clear)
    await trio.testing.wait_all_tasks_blocked()

    setting.check_left()


async def test_a_reply_that_was_not_begun_may_be_dropped(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(speaks("a"))
    setting.ask()
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    assert setting.fake.asked == []


async def test_a_reply_that_is_over_may_be_dropped(autojump_clock: MockClock, make: Make) -> None:
    setting = make(speaks("a"))
    stream = setting.ask()
    await read(stream)
    with trio.testing.assert_no_checkpoints():
        del stream
        gc.collect()

    setting.check_left()


async def test_nothing_that_goes_wrong_in_leaving_gets_out(
    autojump_clock: MockClock, make: Make
) -> None:
    """An exception of a system task would end the whole program."""
    setting = make(streams(delta("a"), math.inf))
    stream = setting.ask()
    await anext(stream)

    async def aclose() -> None:
        raise OSError("gone")

    stream._exchange._response.aclose = aclose
    del stream
    gc.collect()
    await trio.testing.wait_all_tasks_blocked()

    setting.check_left()


async def test_a_connection_that_does_not_close_is_left(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(delta("a"), math.inf))
    stream = setting.ask()
    await anext(stream)
    stream._exchange._response.aclose = trio.sleep_forever
    begun = trio.current_time()
    await stream.aclose()

    assert trio.current_time() - begun == 1
    setting.check_left()


@attrs.frozen
class Left:
    """Something to leave in a loop that ends."""

    stream: CompletionStream
    setting: Setting


@pytest.mark.filterwarnings("default")
def test_a_reply_may_be_dropped_after_its_loop(make: Make) -> None:
    async def begin() -> Left:
        setting = make(streams(delta("a"), 1))
        stream = setting.ask()
        await anext(stream)
        return Left(stream, setting)

    left = trio.run(begin, clock=MockClock(autojump_threshold=0))
    assert not left.stream._exchange.is_closed
    left.setting.check_left()
    del left
    gc.collect()


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


# Folding


class Said(CompletionStream):
    """A stream of these chunks, for `fold`."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks: Iterator[Chunk] = iter(chunks)
        self.is_left = False
        self._token = None

    async def __anext__(self) -> Chunk:
        await trio.lowlevel.checkpoint()
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_left = True

    def __del__(self) -> None:
        pass


async def test_a_stream_without_a_final_chunk_does_not_fold() -> None:
    stream = Said([Chunk(content="a")])
    with pytest.raises(RemoteProtocolError, match="without its finish mark"):
        await fold(stream)

    assert stream.is_left


async def test_nothing_is_read_behind_the_final_chunk() -> None:
    stream = Said([Chunk(content="a", is_final=True), Chunk(content="b")])

    assert (await fold(stream)).content == "a"
    assert (await anext(stream)).content == "b"
