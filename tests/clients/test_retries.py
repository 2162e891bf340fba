"""Asking again, on hosts without sockets."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
import trio
from trio.testing import MockClock

from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._limits import ModelLimits
from flowtrio.clients import _retries
from flowtrio.clients._request import HttpRequest
from flowtrio.clients._retries import MAX_REQUESTS
from tests.support.exchanges import KEY, NOW, Make, read
from tests.support.fake_host import (
    Answer,
    answers,
    delta,
    fails,
    refuses,
    speaks,
    streams,
    whole,
)

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

JSON = {"content-type": "application/json"}


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

    monkeypatch.setattr(_retries, "MAX_REQUESTS", 8)
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
