"""Asking again, on hosts without sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._limits import ModelLimits
from flowtrio.clients._openai import OpenAIClient
from flowtrio.clients._request import HttpRequest
from tests.support.exchanges import KEY, NOW, Make, read
from tests.support.fake_host import (
    DONE,
    FINISH,
    Answer,
    answers,
    delta,
    event,
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
    *map(refuses, (408, 409, 425)),
    streams(),
    streams(b": nothing\n\n"),
    streams(DONE),
    answers(b'{"error": {"message": "Overloaded"}}'),
    streams(event({"error": {"message": "no", "code": 503}})),
    streams(event({"error": {"message": "no", "code": "429"}})),
    streams(event({"error": {"message": "no", "type": "overloaded_error"}})),
    streams(event({"error": "The engine is currently overloaded, please try again later"})),
    streams(event({"choices": [{"index": 0, "error": {"code": 502, "message": "no"}}]})),
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
    error = await setting.fails((ProviderError, RemoteProtocolError))

    assert setting.fake.times == [0, 0.5, 1.5]
    assert error.retryable


@pytest.mark.parametrize("most", [0, 1, 5])
async def test_there_are_as_many_retries_as_were_set(
    autojump_clock: MockClock, make: Make, most: int
) -> None:
    setting = make(refuses(503))
    setting.model.max_retries = most
    await setting.fails(ProviderError)

    assert len(setting.fake.asked) == 1 + most
    assert setting.model.statistics().retries == most


@pytest.mark.parametrize("most", [-1, True, 1.5, "2", None])
def test_what_is_no_number_of_retries_is_refused(most: Any) -> None:
    with pytest.raises(ValueError, match=r"max_retries=.*: expected a whole number, 0 or more"):
        OpenAIClient(api_key="k", model="m", max_retries=most)


async def test_each_retry_is_a_line_in_the_log(
    autojump_clock: MockClock, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await make(refuses(503), refuses(429, retry_after="7"), speaks("a")).text()

    said = "the model's host models.example answered"
    lines = [record.getMessage() for record in caplog.records if record.name == "flowtrio"]
    assert len(lines) == 2
    assert lines[0].startswith(f"{said} 503")
    assert lines[0].endswith("; asking again in 0.5 s (retry 1 of 2)")
    assert lines[1].startswith(f"{said} 429")
    assert lines[1].endswith("; asking again in 7.0 s (retry 2 of 2)")


async def test_a_request_whose_whole_answer_fails_is_sent_again(
    autojump_clock: MockClock, make: Make
) -> None:
    cut = Answer(steps=[b'{"choices', "ReadError"], headers=JSON)
    setting = make(refuses(503), cut, answers(whole("ab")))

    assert await setting.text(wants_stream=False) == "ab"
    assert [asked.body["stream"] for asked in setting.fake.asked] == [False] * 3
    assert setting.fake.times == [0, 0.5, 1.5]


async def test_waits_are_jittered_and_bounded(autojump_clock: MockClock, make: Make) -> None:
    setting = make(refuses(503), jitter=0.25)
    await setting.fails(ProviderError)
    assert setting.fake.times == [0, 0.125, 0.375]

    setting = make(refuses(503))
    setting.model.max_retries = 7
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


async def test_the_wait_may_stand_in_what_google_says(
    autojump_clock: MockClock, make: Make
) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
    error = {"error": {"code": 429, "message": "no", "details": [{"reason": "r"}, retry]}}
    for answer in (answers(json.dumps(error).encode(), status=429), streams(event(error))):
        setting = make(answer, speaks("a"))

        assert await setting.text() == "a"
        assert setting.fake.times == [0, 3.5]


@pytest.mark.parametrize(("says", "status", "count"), [("true", 400, 3), ("False", 503, 1)])
async def test_a_host_that_says_whether_to_ask_again_is_obeyed(
    autojump_clock: MockClock, make: Make, says: str, status: int, count: int
) -> None:
    setting = make(refuses(status, x_should_retry=says))
    error = await setting.fails(ProviderError)

    assert len(setting.fake.asked) == count
    assert error.retryable is (count == 3)


async def test_waits_together_are_no_longer_than_a_first_token_may_take(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(refuses(503, retry_after="25"))
    setting.model.max_retries = 9
    error = await setting.fails(ProviderError)

    assert setting.fake.times == [0, 25, 50]
    assert error.status == 503


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
        streams(event({"error": {"message": "no", "type": "invalid_request_error"}})),
        streams(event({"error": {"message": "pay", "code": "insufficient_quota"}})),
        streams(event({"error": {"message": "no", "code": "401"}})),
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


async def test_what_cannot_be_read_is_not_paid_for_again(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(b"data: {no json\n\n"), speaks("a"))
    error = await setting.fails(RemoteProtocolError)

    assert error.code == "bad_stream"
    assert len(setting.fake.asked) == 1


async def test_an_empty_answer_with_a_finish_reason_is_an_answer(
    autojump_clock: MockClock, make: Make
) -> None:
    setting = make(streams(FINISH, DONE))

    assert await setting.text() == ""
    assert len(setting.fake.asked) == 1


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
