"""What an ERROR event says of an exception."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs

from ._exceptions import DeadlineExceeded, LimitExceeded, ProviderError, RemoteProtocolError
from ._values import check_json, clean_text, type_name

_MAX_CAUSES = 16

_MAX_TEXT = 4096
"""Characters of an error's text: an event carries it, and the conversation too."""

_MAX_DETAIL = 64 * 1024
"""Bytes of a failure's detail as JSON."""


@attrs.frozen(kw_only=True)
class Failure:
    """Why a run failed: the data of its ERROR event, without the causes."""

    error: str
    """What happened; never empty."""
    code: str
    """A stable word for programs."""
    source: str
    """``model tool agent deadline limit store internal``."""
    retryable: bool = False
    """Whether the same run may succeed when it is tried again."""
    deadline: str | None = None
    """The deadline's name, where the source is ``deadline``."""
    limit: str | None = None
    """The limit's name, where the source is ``limit``."""
    detail: dict[str, Any] | None = None
    """Status, request id, the provider's words."""

    def to_data(self, causes: list[dict[str, str]]) -> dict[str, Any]:
        """The data of the ERROR event."""
        return {
            "error": self.error,
            "code": self.code,
            "source": self.source,
            "retryable": self.retryable,
            "deadline": self.deadline,
            "limit": self.limit,
            "detail": self.detail,
            "causes": causes,
        }


def describe(exc: BaseException) -> str:
    """``Type: text``, or the type alone where there is no text."""
    text = _text_of(exc)
    name = type_name(exc)
    return f"{name}: {text}" if text else name


def words_of(exc: BaseException) -> str:
    """The text alone, or the type where there is none: for exceptions of our own."""
    return _text_of(exc) or type_name(exc)


def why_unfit(exc: Exception) -> str:
    """Why a value does not fit, for whoever gave it: of a check that broke, only its type."""
    return words_of(exc) if isinstance(exc, ValueError) else type_name(exc)


def _text_of(exc: BaseException) -> str:
    try:
        return cut_text(str.__str__(str(exc)))
    except KeyboardInterrupt:
        raise
    except BaseException:
        # An exception that cannot say what it is about is no reason to tell nothing of it.
        return ""


def cut_text(text: str) -> str:
    """The beginning of a text, fit for UTF-8, and how much is missing."""
    missing = len(text) - _MAX_TEXT
    if missing <= 0:
        return clean_text(text)
    return f"{clean_text(text[:_MAX_TEXT])}… ({missing} more characters)"


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, groups within it opened, in order; *exc* itself if it is none.

    Each comes once, however often and however deeply it is in there.
    """
    seen: set[int] = set()
    pending = [exc]
    while pending:
        inner = pending.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        if isinstance(inner, BaseExceptionGroup):
            # Of a subclass this may be a property, and give a new one each time.
            pending += reversed(_EXCEPTIONS.__get__(inner))
        else:
            yield inner


def failure_of(exc: BaseException, source: str) -> Failure:
    """Describe the exception that ended a run.

    Args:
      exc: The exception; not a group.
      source: Who raised it, unless the exception itself says.

    """
    match exc:
        case DeadlineExceeded():
            deadline = _word(exc, "deadline", "unknown")
            return Failure(
                error=words_of(exc),
                code="deadline_exceeded",
                source=_word(exc, "source", "deadline"),
                retryable=deadline in ("connect", "first_token", "gap", "content"),
                deadline=deadline,
            )
        case LimitExceeded():
            return Failure(
                error=words_of(exc),
                code=_word(exc, "code", "limit_exceeded"),
                source="limit",
                limit=_word(exc, "limit", "unknown"),
            )
        case ProviderError() | RemoteProtocolError():
            return Failure(
                error=words_of(exc),
                code=_word(exc, "code", "model_failed"),
                source="model",
                retryable=_attribute(exc, "retryable") is True,
                detail=_detail_of(exc),
            )
        case KeyboardInterrupt() | SystemExit():
            return Failure(error=describe(exc), code="interrupted", source="internal")
        case _:
            return Failure(error=describe(exc), code=f"{source}_failed", source=source)


def _attribute(exc: BaseException, name: str) -> Any:
    # A subclass may have an __init__ of its own, which sets none of them.
    try:
        return getattr(exc, name, None)
    except Exception:
        return None


def _word(exc: BaseException, name: str, otherwise: str) -> str:
    word = _attribute(exc, name)
    return cut_text(str.__str__(word)) if isinstance(word, str) and word else otherwise


def _detail_of(exc: BaseException) -> dict[str, Any] | None:
    detail = _attribute(exc, "detail")
    if detail is None:
        return None
    try:
        checked = check_json(detail, "detail", limit_bytes=_MAX_DETAIL)
    except (TypeError, ValueError) as unfit:
        return {"left_out": words_of(unfit)}
    return checked if isinstance(checked, dict) else {"detail": checked}


def causes_of(
    exc: BaseException | None, also: list[tuple[BaseException, str]], source: str
) -> list[dict[str, str]]:
    """What stands behind a failure, as ERROR's ``causes``.

    First the chain of *exc* (``__cause__``, else ``__context__`` where it is not suppressed), then
    the other errors of the run with their own sources.
    """
    found: list[tuple[BaseException, str]] = []
    seen = {id(exc)}
    pending = [] if exc is None else [(cause, source) for cause in _behind(exc)]
    pending += also
    while pending and len(found) < _MAX_CAUSES:
        cause, cause_source = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        found.append((cause, cause_source))
        pending[:0] = [(inner, cause_source) for inner in _behind(cause)]
    return [
        {"error": words_of(cause), "type": type_name(cause), "source": who} for cause, who in found
    ]


def _behind(exc: BaseException) -> list[BaseException]:
    cause = _CAUSE.__get__(exc)
    if cause is None and not _SUPPRESSES.__get__(exc):
        cause = _CONTEXT.__get__(exc)
    # One that comes back to itself, or to another that is told already, may be among them.
    return [] if cause is None else list(islice(leaves(cause), 2 * _MAX_CAUSES))


# The attributes themselves: those of a subclass may be properties, and raise.
_EXCEPTIONS: Any = BaseExceptionGroup.__dict__["exceptions"]
_CAUSE: Any = BaseException.__dict__["__cause__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]
_SUPPRESSES: Any = BaseException.__dict__["__suppress_context__"]
