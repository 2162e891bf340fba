"""Errors as OpenAI's libraries read them: a status, and a body with a message and a code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.serving.http._request import STATUSES

_WHERE: Final = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): ")
"""How a refusal begins that is about one place in the request."""

_CODES: Final = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
}
"""OpenAI's words for what has no code of its own."""

_LIMITS: Final = {"rate_limited": "rate_limit_exceeded", "spend_limited": "insufficient_quota"}
"""And for how often, and for how much, a tenant may ask."""

_MODEL: Final[dict[str, tuple[int, str]]] = {
    "context_window": (400, "context_length_exceeded"),
    "withheld": (400, "content_filter"),
    "unsupported_part": (400, "unsupported_part"),
    "rate_limited": (429, "rate_limit_exceeded"),
}
"""Status and code of what a model's failure is to the client; any other is the server's."""

_SOURCES: Final = {"model": 502, "deadline": 504, "store": 503}
"""Statuses of other failures, by their source."""


def error_body(status: int, code: str | None, message: str) -> dict[str, Any]:
    """The body of an error."""
    code = _CODES.get(status) if code == f"http_{status}" else _LIMITS.get(code or "", code)
    where = _WHERE.match(message) if status == 400 else None
    kind = {429: "rate_limit_error"}.get(status, "invalid_request_error")
    return {
        "error": {
            "message": message,
            "type": "server_error" if status >= 500 else kind,
            "param": where and where[1],
            "code": code,
        }
    }


@attrs.frozen
class Failure:
    """Why a run gave no answer."""

    status: int
    code: str
    message: str
    may_retry: bool = False
    """Whether the client may send the same request again by itself."""

    @property
    def body(self) -> dict[str, Any]:
        """The body that tells it."""
        return error_body(self.status, self.code, self.message)

    @property
    def headers(self) -> dict[str, str]:
        """What keeps OpenAI's libraries from sending it again: they do that at 429 and from 500."""
        return {"x-should-retry": "true" if self.may_retry else "false"}


def failure_of(error: Mapping[str, Any], *, has_acted: bool) -> Failure:
    """What the data of an ERROR is to a client.

    Args:
      error: The data.
      has_acted: Whether a tool has run: then the same request, sent again, would run it again.

    """
    source, code = error["source"], error["code"]
    status = 503 if code == "shutdown" else _SOURCES.get(source, 500)
    if source == "model":
        status, code = _MODEL.get(code, (status, code))
    return Failure(status, code, error["error"], error["retryable"] and not has_acted)


def cancelled(reason: str | None) -> Failure:
    """What a run that somebody cancelled is to a client: no answer, and so an error."""
    words = f"the run was cancelled: {reason}" if reason else "the run was cancelled"
    return Failure(500, "cancelled", words)


def unreadable(code: str, error: str) -> Failure:
    """What a log that cannot be read on is to a client."""
    return Failure(STATUSES.get(code, 500), code, error)


@attrs.define(eq=False)
class Ending:
    """How a run ends, from its events: with an answer, or with a failure."""

    failure: Failure | None = attrs.field(default=None, init=False)
    """Why there is no answer; None as long as there may be one."""
    is_cancelled: bool = attrs.field(default=False, init=False)
    _has_acted: bool = attrs.field(default=False, init=False)

    def feed(self, event: AgentEvent) -> None:
        """Take the log's next event."""
        match event.type:
            case EventType.TOOL_CALL_START:
                self._has_acted = True
            case EventType.ERROR:
                self.failure = failure_of(event.data, has_acted=self._has_acted)
            case EventType.DONE if event.data["status"] == "cancelled":
                self.failure, self.is_cancelled = cancelled(event.data["reason"]), True
            case _:
                pass
