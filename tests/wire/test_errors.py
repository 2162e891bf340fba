"""An error inside a stream is told in the provider's words."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from flowtrio._core._exceptions import ProviderError
from flowtrio.wire._errors import check_no_error, is_error, stream_error


@attrs.frozen
class Told:
    """What becomes of an error that a provider told."""

    words: str
    code: Any = None
    type: str | None = None
    ours: str = "stream_error"
    retryable: bool = False


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("no", Told("no")),
        ({"message": "no"}, Told("no")),
        ({"error": {"message": "no", "type": "x"}}, Told("no", type="x")),
        ({}, Told("")),
        (["no"], Told("no")),
        ({"message": None, "code": [1], "type": 7}, Told("")),
        ({"message": "a\ud800b"}, Told("a\ufffdb")),
        ({"message": "x" * 5000}, Told("x" * 2000)),
        ({"message": "no", "code": 400}, Told("no", 400)),
        ({"message": "no", "code": True}, Told("no")),
        ({"message": "no", "code": "tool_use_failed"}, Told("no", "tool_use_failed")),
        ({"message": "no", "code": 408}, Told("no", 408, retryable=True)),
        ({"message": "no", "code": 409}, Told("no", 409, retryable=True)),
        ({"message": "no", "code": 429}, Told("no", 429, None, "rate_limited", True)),
        ({"message": "no", "code": 500}, Told("no", 500, retryable=True)),
        ({"message": "no", "code": 502}, Told("no", 502, retryable=True)),
        (
            {"message": "no", "type": "server_error"},
            Told("no", None, "server_error", retryable=True),
        ),
        ({"message": "We are Overloaded"}, Told("We are Overloaded", retryable=True)),
        (
            {"message": "no", "code": "rate_limit_exceeded"},
            Told("no", "rate_limit_exceeded", None, "rate_limited", True),
        ),
    ],
)
def test_an_error_is_told_in_the_provider_s_words(error: Any, told: Told) -> None:
    exc = stream_error(error)

    assert exc.detail == {"words": told.words, "code": told.code, "type": told.type}
    assert (exc.code, exc.retryable, exc.status) == (told.ours, told.retryable, None)
    assert str(exc) == "the provider told an error in the middle of its stream"


@pytest.mark.parametrize(
    "value",
    [
        {"code": 0, "message": "Success"},
        {"code": "0", "message": "Success"},
        {"code": 200, "message": "ok"},
        {"code": "OK", "message": "fine"},
        {"code": True, "message": "fine", "type": "note"},
        {"code": 500},
        {"status": "processing", "message": "queued"},
        {"type": "info", "message": "queued"},
        {"code": 11200, "message": "Success", "choices": [{"delta": {}}]},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"error": None, "errors": [], "detail": ""},
        {"error": False},
        {"message": {"content": ""}, "done": False},
        {},
        [],
        [{}],
        ["error"],
        "error",
        None,
    ],
    ids=repr,
)
def test_what_is_no_error_is_taken_for_none(value: Any) -> None:
    assert not is_error(value)
    check_no_error(json.dumps(value).encode())


@pytest.mark.parametrize(
    "value",
    [
        {"code": 11200, "message": "no"},
        {"code": -1, "msg": "no"},
        {"code": "InvalidParameter", "message": "no"},
        {"status": "failed", "message": "no"},
        {"status": "INVALID_ARGUMENT", "message": "no"},
        {"type": "rate_limit", "code": 429, "message": "no"},
        {"type": "server_error", "message": "no"},
        {"detail": [{"msg": "no"}]},
        {"choices": [], "code": 500, "message": "no"},
        [{"error": "no"}],
    ],
    ids=repr,
)
def test_an_error_is_known_by_what_it_looks_like(value: Any) -> None:
    assert is_error(value)
    with pytest.raises(ProviderError) as caught:
        check_no_error(json.dumps(value).encode())

    assert caught.value.detail is not None
    assert caught.value.detail["words"] == "no"


@pytest.mark.parametrize("data", [b"", b"no", b"{no", b"[1]"])
def test_what_is_no_json_is_none(data: bytes) -> None:
    check_no_error(data)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        ({"status": "UNAVAILABLE", "message": "no"}, True),
        ({"code": "429", "message": "no"}, True),
        ({"code": "503"}, True),
        ({"code": 425}, True),
        ({"code": 501}, False),
        ({"code": 1302, "message": "no"}, False),
        ({"code": "ServiceUnavailable"}, True),
        ({"code": "Throttling.RateQuota"}, True),
        ({"type": "engine_overloaded_error"}, True),
        ({"type": "invalid_request_error", "message": "server is busy"}, False),
        ({"code": "400", "message": "try again"}, False),
        ({"message": "Internal Server Error"}, True),
        ({"message": "The model is at capacity"}, True),
        ({"message": "your account has no rights"}, False),
        ({"code": "insufficient_quota", "status_code": 429}, False),
        ({"type": "exceeded", "error": {"code": "billing_hard_limit_reached"}}, False),
    ],
    ids=repr,
)
def test_whether_an_error_passes_is_told_by_its_names_before_its_words(
    error: Any, retryable: bool
) -> None:
    assert stream_error(error).retryable is retryable


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("7s", 7.0), ("0.5s", 0.5), ("7", None), ("soon", None), (7, None), (None, None)],
)
def test_google_says_how_long_to_wait(delay: Any, seconds: float | None) -> None:
    error = {"code": 429, "details": ["what", {}, {"retryDelay": delay}]}

    assert stream_error({"error": error}).retry_after == seconds


@pytest.mark.parametrize(
    "value",
    [
        {"status": "failed"},
        {"status": 500},
        {"statusCode": "503"},
        {"error": {}},
        {"error": True},
        {"exception": "out of memory"},
        {"traceback": "..."},
    ],
    ids=repr,
)
def test_an_error_may_say_no_more_than_that_it_is_one(value: dict[str, Any]) -> None:
    assert is_error(value)
    assert not is_error({**value, "type": "progress"})
    assert not is_error({**value, "choices": [{"delta": {}}]})


@pytest.mark.parametrize("value", [{"status": "queued"}, {"status": 200}, {"code": 0}], ids=repr)
def test_how_far_something_is_is_no_error(value: dict[str, Any]) -> None:
    assert not is_error(value)
