"""What a provider tells inside a stream of status 200 when it fails, as a `ProviderError`."""

from __future__ import annotations

from typing import Any

from flowtrio._core._exceptions import ProviderError
from flowtrio._core._values import clean_text

_PASSING = ("overload", "rate_limit", "server_error", "api_error", "timeout_error")
"""What stands in the names of errors that another attempt may not meet."""


def stream_error(error: Any) -> ProviderError:
    """The error that a provider told inside a stream of status 200."""
    given = error if isinstance(error, dict) else {"message": str(error)}
    nested = given.get("error")
    if isinstance(nested, dict):
        given = nested
    code, kind = given.get("code"), given.get("type")
    status = code if isinstance(code, int) and not isinstance(code, bool) else None
    words = clean_text(str(given.get("message") or ""))[:2000]
    hints = f"{code} {kind} {words}".lower()
    retryable = status in (408, 409, 429) or (status or 0) >= 500
    retryable = retryable or any(w in hints for w in _PASSING)
    return ProviderError(
        "the provider told an error in the middle of its stream",
        status=None,
        code="rate_limited" if status == 429 or "rate_limit" in hints else "stream_error",
        retryable=retryable,
        detail={
            "words": words,
            "code": code if isinstance(code, str | int) else None,
            "type": kind if isinstance(kind, str) else None,
        },
    )
