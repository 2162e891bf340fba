"""What a provider says when it fails, as a `ProviderError`, however it wraps that.

Every host and every gateway before it has a shape of its own, and sends it as the body of a refusal
or as a frame of a stream that began with status 200. So what an error says is found by what it
looks like, in one place for all protocols::

    {"error": {...}}  {"error": "..."}  {"errors": [...]}  {"detail": ...}
    {"object": "error", ...}  {"type": "error", ...}  {"code": ..., "message": "..."}

Whether another attempt may succeed is told by the HTTP status or the names that stand in it; by its
words only where there is neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from flowtrio._core._exceptions import ProviderError
from flowtrio._core._values import clean_text

from ._json import decode_json

MAX_WORDS = 2000
"""Characters of the provider's own words that are kept."""

_WRAPPERS = ("error", "errors", "base_resp", "fault")
"""Keys under which an error stands."""

_WORDS = (
    *("message", "msg", "error_msg", "error_message", "errormessage", "errmsg", "status_msg"),
    *("faultstring", "exception", "err", "detail", "title", "reason"),
)
_CODES = (
    *("code", "error_code", "errorcode", "errno", "errcode", "status_code", "statuscode", "status"),
)
"""What an error says, and its codes, by the names that hosts have for them, in small letters."""

_TELLING = ("errormessage", "error_message", "error_msg", "errmsg", "exception", "err", "traceback")
"""Names under which nothing but an error is told."""

_FAILURES = ("error", "failed", "failure")
"""How far something is that has failed."""

_OF_ANSWERS = ("choices", "candidates", "content", "delta", "response", "done")
"""Keys of answers in all protocols."""

_FINE = frozenset({"", "ok", "success", "succeeded", "none", "null"})
"""Codes that say that nothing is wrong."""

_PASSING = re.compile(
    "overload|ratelimit|throttl|toomany(?:requests|concurrent)|servererror|internal|apierror"
    "|timeout|timedout|unavailable|resourceexhausted|capacity|slowdown|deadlineexceeded|badgateway"
    "|tryagain|busy"
)
"""What stands in the names of errors that another attempt may not meet."""

_PASSING_WORDS = re.compile(
    "overload|ratelimit|toomany(?:requests|concurrent)|servererror|serviceunavailable|badgateway"
    "|gatewaytimeout|temporarilyunavailable|atcapacity|tryagain|serverisbusy|serverbusy"
)
"""The same in words, which say many things."""

_LIMITED = re.compile("ratelimit|toomanyrequests|throttl|resourceexhausted")

_OF_THE_REQUEST = re.compile("invalid|badrequest|auth|permission|forbidden|notfound|unsupported")
"""What stands in the names of errors that every attempt meets."""

_FAILED = re.compile("error|fail|denied|exceeded|exhausted|aborted")

_USED_UP = re.compile("insufficientquota|insufficient(?:user)?(?:quota|balance)|^billing")
"""The names of errors that stay true, however long one waits, though their status is 429."""

_WITHHELD = re.compile(
    "contentfilter|contentpolicy|contentmoderation|moderationblocked|datainspectionfailed"
    "|responsibleaipolicy"
)
"""The names of errors that say that a provider does not answer what was asked."""

_WITHHELD_WORDS = re.compile(
    "flaggedaspotentiallyviolating|inputwasflagged|promptwasflagged|contentfilteringpolicy"
    "|contentmanagementpolicy|inappropriatecontent"
)
"""The same in words."""

_FULL = re.compile("context(?:length|window)exceeded|^exceedcontextsize")
"""The names of errors that say that a conversation does not fit into its model."""

_FULL_WORDS = re.compile(
    "maximumcontextlength|contextwindowof|promptistoolong|exceedsthecontextlength"
    "|exceedsthemaximumnumberoftokens"
)
"""The same in words."""

_PAUSE = re.compile(r"\s*(\d+(?:\.\d+)?)s\s*")
"""A duration, as Google writes it."""


@attrs.frozen(kw_only=True)
class Told:
    """What a provider said of an error."""

    words: str | None = None
    code: str | int | None = None
    """Its code, as it was given."""
    type: str | None = None
    status: int | None = None
    """The HTTP status that stands in it."""
    retry_after: float | None = None
    """Seconds to wait, where it says so."""

    @property
    def is_used_up(self) -> bool:
        """Whether a quota is, so that waiting does not help."""
        return any(_USED_UP.search(name) for name in self._names)

    @property
    def is_too_long(self) -> bool:
        """Whether the conversation does not fit into the model."""
        if any(_FULL.search(name) for name in self._names):
            return True
        return _FULL_WORDS.search(_squashed(self.words)) is not None

    @property
    def of_the_conversation(self) -> str | None:
        """The code of an error that lies in what was sent, whoever asks and whenever."""
        return "withheld" if self.is_withheld else "context_window" if self.is_too_long else None

    @property
    def is_withheld(self) -> bool:
        """Whether this request will be answered by nobody there, for what it says."""
        if any(_WITHHELD.search(name) for name in self._names):
            return True
        return _WITHHELD_WORDS.search(_squashed(self.words)) is not None

    @property
    def is_limited(self) -> bool:
        """Whether too much was asked in too short a time."""
        if self.status is not None:
            return self.status == 429
        names = (*self._names, _squashed(self.words))
        return any(_LIMITED.search(name) for name in names)

    @property
    def is_passing(self) -> bool:
        """Whether another attempt may not meet it."""
        if self.is_used_up or self.of_the_conversation is not None:
            return False
        if any(_PASSING.search(name) for name in self._names):
            return True
        if self.status is not None:
            return is_passing(self.status)
        if any(_OF_THE_REQUEST.search(name) for name in self._names):
            return False
        return _PASSING_WORDS.search(_squashed(self.words)) is not None

    @property
    def _names(self) -> tuple[str, ...]:
        code = self.code if isinstance(self.code, str) else None
        return tuple(filter(None, (_squashed(code), _squashed(self.type))))


def is_passing(status: int) -> bool:
    """Whether the same request may succeed after this HTTP status."""
    # A timeout, a conflict, "too early", a limit; "not implemented" stays so.
    return status in (408, 409, 425, 429) or (500 <= status <= 599 and status != 501)


def read_error(value: Any) -> Told:
    """What an error says: the error itself, or what wraps it."""
    if isinstance(value, list):
        return read_error(value[0]) if value else Told()
    if not isinstance(value, dict):
        return Told(words=None if value is None else _cut(value))
    value = _in_small_letters(value)
    told = _read(value)
    inner = next((value[key] for key in _WRAPPERS if is_said(value.get(key))), None)
    if inner is None:
        return told
    nested = read_error(inner)
    return Told(
        words=nested.words or told.words,
        code=nested.code if nested.code is not None else told.code,
        type=nested.type or (told.type if told.type != "error" else None),
        status=nested.status or told.status,
        retry_after=nested.retry_after if nested.retry_after is not None else told.retry_after,
    )


def _read(value: dict[str, Any]) -> Told:
    words = next((value[key] for key in _WORDS if value.get(key)), None)
    codes = [value[key] for key in _CODES if _is_code(value.get(key))]
    kind, status = value.get("type"), value.get("status")
    if isinstance(status, str) and _number(status) is None:
        # Google's name for the kind of an error, or how far something is.
        codes.remove(status)
        kind = kind if isinstance(kind, str) else status
    code = codes[0] if codes else None
    return Told(
        words=None if words is None else _words(words),
        code=clean_text(code)[:200] if isinstance(code, str) else code,
        type=clean_text(kind)[:200] if isinstance(kind, str) else None,
        status=next(filter(None, map(_status, codes)), None),
        retry_after=_pause(value.get("details")),
    )


def _words(words: Any) -> str:
    """Its words; those of several, as of a request that does not fit, with their places."""
    if not isinstance(words, list):
        return _cut(words)
    told = [item for item in words if isinstance(item, dict) and isinstance(item.get("msg"), str)]
    if not told or len(told) < len(words):
        return _cut(words)
    places = [item["loc"] if isinstance(item.get("loc"), list) else [] for item in told]
    return _cut(
        "; ".join(
            ": ".join(filter(None, (".".join(map(str, place)), item["msg"])))
            for place, item in zip(places, told, strict=True)
        )
    )


def is_said(value: Any) -> bool:
    """Whether a key holds what an error says, and not a flag."""
    return bool(value) and not isinstance(value, bool | int | float)


def _is_code(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _status(code: str | int) -> int | None:
    """The HTTP status that a code is; codes as text are read as numbers."""
    number = _number(code)
    return number if number is not None and 400 <= number <= 599 else None


def _number(code: str | int) -> int | None:
    if isinstance(code, int):
        return code
    return int(code) if code.isascii() and code.isdecimal() and len(code) < 10 else None


def _pause(details: Any) -> float | None:
    """What Google's ``RetryInfo`` says."""
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        found = _PAUSE.fullmatch(delay) if isinstance(delay, str) else None
        if found is not None:
            return float(found[1])
    return None


def _squashed(text: str | None) -> str:
    """A text without what different hosts write differently between its words."""
    return re.sub(r"[^a-z0-9]", "", (text or "").lower())


def _cut(words: Any) -> str:
    return clean_text(str(words))[:MAX_WORDS]


def stream_error(error: Any) -> ProviderError:
    """The error that a provider told inside a stream of status 200."""
    told = read_error(error)
    in_general = "rate_limited" if told.is_limited else "stream_error"
    return ProviderError(
        "the provider told an error in the middle of its stream",
        status=None,
        code="quota_exceeded" if told.is_used_up else told.of_the_conversation or in_general,
        retry_after=told.retry_after,
        retryable=told.is_passing,
        detail={"words": told.words or "", "code": told.code, "type": told.type},
    )


# Frames that say nothing that their protocol knows


def check_no_error(data: bytes) -> None:
    """Raise the error that a frame or a whole answer is in which its protocol found nothing."""
    if b"{" not in data:
        return
    try:
        value = decode_json(data)
    except ValueError:
        return
    if is_error(value):
        raise stream_error(value)


def named_error(data: bytes) -> ProviderError:
    """The error in an event that is named ``error``, whatever its data look like."""
    try:
        value = decode_json(data)
    except ValueError:
        value = data.decode("utf-8", "replace")
    return stream_error(value)


def is_error(value: Any) -> bool:
    """Whether a frame has the shape of an error in anybody's protocol."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and is_error(item) for item in value)
    if not isinstance(value, dict):
        return False
    value = _in_small_letters(value)
    kind = value.get("type")
    if "error" in (value.get("object"), kind) or any(map(is_said, _get(value, *_WRAPPERS[:2]))):
        return True
    if is_error(value.get("base_resp")):
        return True
    if any(map(is_said, _get(value, *_OF_ANSWERS))):
        return False
    has_words = any(isinstance(words, str) and words for words in _get(value, *_WORDS))
    if has_words and any(_is_failure(key, value.get(key)) for key in _CODES):
        return True
    # Without a code: not what says by its type that it is something else.
    is_other = isinstance(kind, str) and kind != "" and "error" not in kind.lower()
    is_told = any(isinstance(words, str) and words for words in _get(value, "message", "msg"))
    return not is_other and (
        is_said(value.get("detail"))
        or any(map(is_said, _get(value, "fault", *_TELLING)))
        or value.get("error") in ({}, True)
        or any(map(_is_plain_failure, _get(value, "status", "status_code", "statuscode")))
        or (is_told and not value.keys() & set(_CODES))
    )


def _get(value: dict[str, Any], *keys: str) -> Iterator[Any]:
    return (value.get(key) for key in keys)


def _is_plain_failure(code: Any) -> bool:
    """Whether a status says that something failed, where there are no words to it."""
    if not _is_code(code):
        return False
    return _status(code) is not None or str(code).lower() in _FAILURES


def _in_small_letters(value: dict[str, Any]) -> dict[str, Any]:
    return {str(key).lower(): item for key, item in value.items()}


def _is_failure(key: str, code: Any) -> bool:
    """Whether a code says that something failed."""
    if not _is_code(code):
        return False
    number = _number(code)
    if number is not None:
        return number != 0 and not 100 <= number <= 299
    name = _squashed(str(code))
    if key == "status":
        # It is also the word for how far something is.
        found = (pattern.search(name) for pattern in (_PASSING, _OF_THE_REQUEST, _FAILED))
        return any(found)
    return name not in _FINE
