from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio.clients._errors import (
    add_words,
    error_of_response,
    read_retry_after,
    refuses_streaming,
    request_id,
)

NOW: Final = 1_700_000_000.0
"""Tue, 14 Nov 2023 22:13:20 GMT."""

PROPERTY: Final = settings(
    max_examples=300, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)


def error_of(status: int, body: Any = b"", **headers: str) -> ProviderError:
    """The error of an answer whose headers are written with underscores."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_of_response(status, named, data, "models.example", NOW)


def told(body: Any) -> tuple[str | None, str | None]:
    """The code and the words that are read from a body."""
    detail = error_of(400, body).detail or {}
    return detail["code"], detail["words"]


# What kind of error it is


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "bad_request", False),
        (401, "unauthorized", False),
        (402, "quota_exceeded", False),
        (403, "forbidden", False),
        (404, "not_found", False),
        (413, "too_large", False),
        (408, "provider_error", True),
        (409, "provider_error", True),
        (418, "provider_error", False),
        (425, "provider_error", True),
        (422, "bad_request", False),
        (429, "rate_limited", True),
        (302, "provider_error", False),
        (500, "server_error", True),
        (501, "server_error", False),
        (503, "server_error", True),
        (529, "server_error", True),
    ],
)
def test_a_status_gives_a_code_and_says_whether_to_ask_again(
    status: int, code: str, retryable: bool
) -> None:
    error = error_of(status)

    assert (error.status, error.code, error.retryable) == (status, code, retryable)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
@pytest.mark.parametrize("key", ["code", "type"])
def test_a_used_up_quota_is_not_asked_again_though_its_status_says_so(key: str, code: str) -> None:
    error = error_of(429, {"error": {key: code, "message": "pay"}})

    assert (error.code, error.retryable) == ("quota_exceeded", False)


def test_the_message_says_who_answered_what() -> None:
    assert str(error_of(503)) == "the model's host models.example answered 503, expected 200"


def test_the_words_of_the_host_are_in_the_detail_and_not_in_the_message() -> None:
    error = error_of(400, {"error": {"message": "no such model", "code": "model_not_found"}})

    assert "no such model" not in str(error)
    assert error.detail == {
        "status": 400,
        "request_id": None,
        "code": "model_not_found",
        "words": "no such model",
    }


# What the body says


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "no", "code": "c", "type": "t"}}, ("c", "no")),
        ({"error": {"message": "no", "code": None, "type": "t"}}, ("t", "no")),
        ({"error": {"message": "no", "code": 400, "status": "INVALID"}}, ("INVALID", "no")),
        ({"error": {"message": "no", "code": 400}}, (None, "no")),
        ([{"error": {"message": "no", "status": "INVALID"}}], ("INVALID", "no")),
        ([[{"message": "no"}]], (None, "no")),
        ({"error": "no"}, (None, "no")),
        ({"error": "no", "code": "c"}, ("c", "no")),
        ({"message": "no", "type": "t"}, ("t", "no")),
        ({"error": None, "message": "no"}, (None, "no")),
        ({"error": 3, "message": "no"}, (None, "no")),
        ({"detail": "no"}, (None, "no")),
        ({"detail": [{"msg": "no"}]}, (None, "no")),
        (
            {"detail": [{"msg": "no", "loc": ["body", "n"]}, {"msg": "so", "loc": "x"}]},
            (None, "body.n: no; so"),
        ),
        ({"detail": [{"loc": ["n"]}]}, (None, "[{'loc': ['n']}]")),
        ({"errors": [{"message": "no", "code": "c"}]}, ("c", "no")),
        ({"type": "error", "error": {"type": "t", "message": "no"}}, ("t", "no")),
        ({"error": {"message": "", "detail": "no"}}, (None, "no")),
        ({"something": "else"}, (None, None)),
        ({"error": {"message": "a\ud800"}}, (None, "a\ufffd")),
        ([], (None, "[]")),
        (b"", (None, None)),
        (b" \n", (None, None)),
        (b" upstream connect error\n", (None, "upstream connect error")),
        (b"<html><body>Bad gateway</body></html>", (None, None)),
        (b"\xff\xfeno", (None, "\ufffd\ufffdno")),
        (b'{"error": {"message": "cut of', (None, '{"error": {"message": "cut of')),
        (b'"text"', (None, '"text"')),
    ],
)
def test_the_hosts_words_are_found_however_they_are_wrapped(
    body: Any, expected: tuple[str | None, str | None]
) -> None:
    assert told(body) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_an_error_that_is_sent_as_an_event_stream_is_read(end: bytes) -> None:
    body = b': hello\n\nevent: error\ndata: {"error":{"message":"no","code":"c"}}' + end

    assert told(body) == ("c", "no")


def test_the_first_event_that_is_json_is_the_one_that_counts() -> None:
    assert told(b'data: soon\n\ndata: {"message":"no"}\n\ndata: {"message":"yes"}\n\n')[1] == "no"


def test_a_stream_that_no_decoder_takes_is_text() -> None:
    # One line longer than any event may be.
    body = b"x" * (8 * 1024 * 1024 + 1)

    assert told(body) == (None, "x" * 2000)


def test_long_words_and_codes_are_cut() -> None:
    code, words = told({"error": {"message": "w" * 5000, "code": "c" * 5000}})

    assert words == "w" * 2000
    assert code == "c" * 200


def test_deep_nesting_is_text_and_nothing_worse() -> None:
    assert told(b"[" * 100_000)[1] == "[" * 2000


@PROPERTY
@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["error", "message", "code", "type", "status", "detail"]),
                    inner,
                    max_size=4,
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_body_gives_an_error_that_is_json(body: bytes) -> None:
    error = error_of(500, body)

    assert json.loads(json.dumps(error.detail)) == error.detail
    assert error.retryable


# The request's name


@pytest.mark.parametrize(
    "name", ["x-request-id", "request-id", "apim-request-id", "x-goog-request-id"]
)
def test_the_providers_name_of_the_request_is_kept(name: str) -> None:
    headers = {"date": "today", name: "req_1"}

    assert request_id(headers) == "req_1"
    assert (error_of_response(500, headers, b"", "h", NOW).detail or {})["request_id"] == "req_1"


def test_an_answer_without_a_name_has_none() -> None:
    assert request_id({"date": "today"}) is None


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10.0),
        ({"retry-after": "Tue, 14 Nov 2023 23:13:30 +0100"}, 10.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:10 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Tue, 32 Nov 2023 22:13:10 GMT"}, None),
    ],
)
def test_how_long_the_host_asked_us_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, NOW) == seconds


def test_an_error_says_how_long_to_wait() -> None:
    assert error_of(429, retry_after="7").retry_after == 7.0
    assert error_of(429).retry_after is None


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own time is five hours behind UTC."""
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_date_with_its_zone_does_not_depend_on_the_machines() -> None:
    assert read_retry_after({"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}, NOW) == 10.0


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize(
    "text", ["Tue Nov 14 22:13:30 2023", "Tue, 14 Nov 2023 22:13:30 -0000"], ids=["asctime", "zero"]
)
def test_a_date_without_a_zone_is_utc(text: str) -> None:
    # RFC 9110, section 5.6.7: "a recipient … MUST accept all three HTTP-date formats", all in UTC.
    assert read_retry_after({"retry-after": text}, NOW) == 10.0


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 99999999999999999999 Nov 2023 22:13:30 GMT",
        "Tue, 14 Nov 99999999999999999999 22:13:30 GMT",
        "Tue, 14 Nov 2023 22:13:30 +99999999999999999999",
    ],
)
def test_a_date_of_numbers_that_no_date_has_is_no_date(text: str) -> None:
    assert read_retry_after({"retry-after": text}, NOW) is None


# Whether the host would rather be asked for a whole answer


@pytest.mark.parametrize(
    ("status", "words", "refuses"),
    [
        (405, None, True),
        (501, "not implemented", True),
        (400, "Streaming is not supported by this model", True),
        (403, "your plan cannot stream", True),
        (404, "no streamed answers here", True),
        (422, "stream: must be false", True),
        (400, "unknown model", False),
        (400, None, False),
        (401, "cannot stream without a key", False),
        (429, "too many streams", False),
        (429, "streaming too much", False),
        (500, "stream broken", False),
        (500, "streaming is not available", True),
        (404, "the upstream host has gone", False),
    ],
)
def test_a_host_that_cannot_stream_is_known_by_its_status_or_its_words(
    status: int, words: str | None, refuses: bool
) -> None:
    error = error_of(status, {"error": {"message": words}} if words else b"")

    assert refuses_streaming(error) is refuses


def test_an_error_without_any_detail_does_not_refuse_streaming() -> None:
    assert not refuses_streaming(ProviderError("no", status=400))


# The text


def worded(error: ProviderError | RemoteProtocolError, model: str = "") -> str:
    add_words(error, model)
    return str(error)


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        (None, "it failed (model m)"),
        ({"words": "no", "code": "c", "type": "t"}, "it failed: no (code c, model m)"),
        ({"words": "no", "code": None, "type": "t"}, "it failed: no (code t, model m)"),
        ({"words": " a\nb\x00c ", "code": 7}, "it failed: a b c (code 7, model m)"),
        (
            {"words": "error parsing: raw='secret', err"},
            "it failed: error parsing: raw=… (model m)",
        ),
    ],
)
def test_a_text_has_words_code_and_model(detail: dict[str, Any] | None, text: str) -> None:
    assert worded(RemoteProtocolError("it failed", detail=detail), "m") == text


def test_a_remedy_stands_behind_the_words() -> None:
    text = worded(error_of(401, {"error": {"message": "wrong key", "code": "invalid_api_key"}}))

    assert text.endswith(
        "answered 401, expected 200: wrong key (code invalid_api_key). Check the key"
    )


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://other.example/v2", "redirects (308) to https://other.example/v2, expected 200"),
        ("https://u:p@other.example/?key=canary#x", "to https://other.example/, expected"),
        ("/v2", "redirects (308) to /v2, expected"),
        ("", "answered 308, expected"),
    ],
)
def test_a_redirect_names_its_target(location: str, said: str) -> None:
    text = worded(error_of(308, location=location))

    assert said in text
    assert text.endswith(". Check the base_url")
    assert "canary" not in text
