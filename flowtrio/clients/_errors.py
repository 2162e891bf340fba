"""What a model's host says when it refuses, or does not answer, as a `ProviderError`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._values import clean_text
from flowtrio.wire._errors import MAX_WORDS, Told, is_passing, read_error
from flowtrio.wire._json import decode_json
from flowtrio.wire._sse import SSEDecoder

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    402: "quota_exceeded",
    403: "forbidden",
    404: "not_found",
    413: "too_large",
    422: "bad_request",
    429: "rate_limited",
}

_OF_THE_ACCOUNT = (401, 402, 429)
"""Refusals that have nothing to do with what was asked, as a fault of the host has not."""

_MAX_LINE = 300
"""Characters of them that stand in an error's text."""

_RAW = re.compile(r"\braw='.*", re.DOTALL)
"""Ollama quotes what the model said."""

_REMEDIES = {
    301: ". Check the base_url",
    302: ". Check the base_url",
    303: ". Check the base_url",
    307: ". Check the base_url",
    308: ". Check the base_url",
    401: ". Check the key",
    403: ". Check what the key may be used for",
    404: ". Check the model's name and the base_url",
}

_STREAM = re.compile(r"\bstream", re.IGNORECASE)
"""Not the ``upstream`` that a proxy speaks of."""

_STREAMING = re.compile(r"\bstreaming\b", re.IGNORECASE)

_OF_THE_KEY = ("unauthorized", "quota_exceeded", "rate_limited")
"""Codes of refusals that another form of the same request would meet as well."""

_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-goog-request-id")


def error_of_response(
    status: int, headers: Mapping[str, str], body: bytes, host: str, now: float
) -> ProviderError:
    """Describe an answer that is no success.

    Args:
      status: HTTP status.
      headers: Of the answer.
      body: What could be read of it.
      host: Whom we asked, for the message.
      now: UTC, seconds, for a ``Retry-After`` that is a date.

    """
    told = _read_body(body)
    by_status = _CODES.get(status) or ("server_error" if status >= 500 else "provider_error")
    is_elsewhere = status in _OF_THE_ACCOUNT or status >= 500
    kind = by_status if is_elsewhere else told.of_the_conversation or by_status
    code = told.code if isinstance(told.code, str) else told.type
    wait = read_retry_after(headers, now)
    return ProviderError(
        f"the model's host {host} {_answer(status, headers)}, expected 200",
        status=status,
        code="quota_exceeded" if told.is_used_up else kind,
        retry_after=told.retry_after if wait is None else wait,
        retryable=_is_retryable(status, headers, told),
        detail={
            "status": status,
            "request_id": request_id(headers),
            "code": code or None,
            "words": told.words,
        },
    )


def _answer(status: int, headers: Mapping[str, str]) -> str:
    """What it answered; a redirect, which is not followed with a key, names its target."""
    target = headers.get("location", "") if 300 <= status < 400 else ""
    if not target:
        return f"answered {status}"
    parts = urlsplit(clean_text(target))
    # Neither a password nor a query, which may hold a key.
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return f"redirects ({status}) to {_line(place, 200)}"


def add_words(error: ProviderError | RemoteProtocolError, model: str) -> None:
    """Have an error's text say what its detail does: the provider's words, its code, the model.

    To be called when no secret is in there any more.
    """
    detail = error.detail or {}
    words = _line(_RAW.sub("raw=…", str(detail.get("words") or "")), _MAX_LINE)
    code = detail.get("code") if detail.get("code") is not None else detail.get("type")
    told = [f"code {_line(str(code), 100)}"] if code is not None else []
    told += [f"model {_line(model, 100)}"] if model else []
    status = error.status if isinstance(error, ProviderError) else None
    said = f": {words}" if words else ""
    about = f" ({', '.join(told)})" if told else ""
    error.args = (f"{error}{said}{about}{_REMEDIES.get(status or 0, '')}",)


def _line(text: str, most: int) -> str:
    """A text on one line, cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else f"{line[:most]}…"


def _is_retryable(status: int, headers: Mapping[str, str], told: Told) -> bool:
    """Whether another attempt may succeed: the host knows best, where it says."""
    match headers.get("x-should-retry", "").strip().lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            return is_passing(status) and not told.is_used_up


def unreachable(exc: Exception, host: str) -> ProviderError:
    """Describe that no answer came; *exc* is the library's."""
    # A certificate does not become valid by asking again.
    is_certificate = "CERTIFICATE" in str(exc).upper()
    return ProviderError(
        f"the model's host {host} could not be reached: {type(exc).__name__}",
        code="connection_failed",
        retryable=not is_certificate,
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's own name for the request, to be told to its support."""
    return next((headers[name] for name in _REQUEST_IDS if name in headers), None)


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the host asked us to wait (RFC 9110, section 10.2.3), or None."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
        # "All HTTP-date timestamps MUST be represented in Coordinated Universal Time" (section
        # 5.6.7), and one of its three formats does not say so.
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def refuses_streaming(error: ProviderError) -> bool:
    """Whether the host would rather be asked for a whole answer."""
    if error.status in (405, 501):
        return True
    words = str((error.detail or {}).get("words") or "")
    if error.status in (400, 403, 404, 422):
        return _STREAM.search(words) is not None
    # Elsewhere, and in a stream itself, streams are also what broke.
    return error.code not in _OF_THE_KEY and _STREAMING.search(words) is not None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _read_body(body: bytes) -> Told:
    """What the host says, however it wraps that."""
    value = _find_json(body)
    if isinstance(value, dict) or (isinstance(value, list) and value):
        return read_error(value)
    text = clean_text(body[:MAX_WORDS].decode("utf-8", "replace")).strip()
    # A page of HTML is a proxy's, and says nothing of the request.
    return Told() if not text or text.startswith("<") else Told(words=text)


def _find_json(body: bytes) -> Any:
    """The body as JSON; some hosts send even errors as an event stream."""
    try:
        events = SSEDecoder().receive_data(body + b"\n\n")
    except RemoteProtocolError:
        events = []
    for data in (body, *(event.data for event in events)):
        try:
            return decode_json(data)
        except ValueError:
            continue
    return None
