"""Names, ids, texts and results of a conversation, as every provider takes them.

What one provider gives, another refuses: names with dots, ids of 46 characters or the same id twice
in one conversation, a message of nothing but spaces, a call whose result is elsewhere or nowhere. A
conversation may change its provider with each turn, and a message that one refuses stands in it for
ever. So they are made fit on the way into it; events show what was given.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import msgspec

from ._values import copy_json

Message: TypeAlias = dict[str, Any]
"""See `flowtrio.abc.Message`."""

M = TypeVar("M", bound=Mapping[str, Any])

NO_TEXT: Final = "(no text)"
"""Stands for a user's message without any text: "text content blocks must be non-empty". Also for
one that a provider wants before the assistant's first and that is not there."""

NOT_RUN: Final = "error: this call was not run"
"""What the model is told of a call that it asked for and that nobody ran."""

MAX_NAME: Final = 64
"""Characters of a tool's name that every provider takes."""

_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")
_ID: Final = re.compile(r"[!-~]{1,40}")


def fit_name(name: str) -> str:
    """A tool's name in the characters and the length that every provider takes."""
    if len(name) <= MAX_NAME and name.isascii() and name.isidentifier():
        return name  # as most are; without regular expressions
    return _ODD.sub("_", name)[:MAX_NAME] or "unnamed"


def is_blank(text: str) -> bool:
    """Whether there is nothing to read in *text*; also what Python's ``strip`` takes for that."""
    return not text.strip()


def without_blank(parts: list[Any]) -> list[Any]:
    """A message's parts but those of text in which there is nothing to read."""
    return [part for part in parts if not _is_blank_part(part)]


def _is_blank_part(part: Any) -> bool:
    match part:
        case {"type": "text", "text": str(text)}:
            return is_blank(text)
        case _:
            return False


def fit_arguments(given: Any) -> str:
    """A call's arguments as text of a JSON object; what does not parse becomes empty.

    A provider may refuse a conversation whose arguments do not parse.
    """
    if isinstance(given, dict):
        return msgspec.json.encode(given).decode()
    try:
        is_object = isinstance(msgspec.json.decode(given or ""), dict)
    except (TypeError, ValueError, RecursionError):
        is_object = False
    return given if is_object else "{}"


def digest(text: str) -> str:
    """A short name for any text, always the same."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class CallIds:
    """The ids of one conversation's calls, each of them its own and fit for every provider."""

    __slots__ = ("_used",)

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used: set[str] = {_plain(id) for id in used}

    def take(self, wanted: str, fallback: str) -> str:
        """Give *wanted* if it fits and is new, else *fallback*, numbered where that is used too.

        *fallback* has to fit, with room for a number.
        """
        if _ID.fullmatch(wanted) and self._is_taken(wanted):
            return wanted
        numbered = (f"{fallback}_{number}" for number in itertools.count(2))
        return next(id for id in itertools.chain((fallback,), numbered) if self._is_taken(id))

    def _is_taken(self, id: str) -> bool:
        """Take *id*, if nobody did."""
        plain = _plain(id)
        if plain in self._used:
            return False
        self._used.add(plain)
        return True


def _plain(id: str) -> str:
    """An id in the characters that the strictest take; two must not become one by that."""
    return id if id.isascii() and id.isidentifier() else _ODD.sub("_", id)


@attrs.define(eq=False)
class Entry:
    """A message, and behind it a result of each call that it asks for."""

    message: Message
    calls: dict[str, str] = attrs.Factory(dict)
    """The ids that its calls have in the conversation, in order; by the keys of `results`."""
    results: dict[str, Message | str] = attrs.Factory(dict)
    """What the model is told of them: a message, or its text."""

    is_withheld: bool = False
    """Whether it goes into no later request."""

    def edit(self, key: str, arguments: str) -> None:
        """Have a call ask for other arguments, which a person gave it.

        What the provider wants back of the message is about the message as the model wrote it.
        """
        id = self.calls[key]
        self.message.pop("flowtrio", None)
        for call in self.message["tool_calls"]:
            call.pop("flowtrio", None)
            if call["id"] == id:
                call["function"]["arguments"] = arguments

    def told(self) -> Iterator[Message]:
        """What stands in the conversation, the caller's own copy."""
        for message in self._told():
            yield withheld(message) if self.is_withheld else message

    def _told(self) -> Iterator[Message]:
        yield copy_json(self.message)
        for key, id in self.calls.items():
            result = self.results.get(key, NOT_RUN)
            yield result_message(id, result) if isinstance(result, str) else copy_json(result)


def withheld(message: Message) -> Message:
    """Mark a message of a turn whose answer its provider withheld."""
    return {**message, "flowtrio": {**(message.get("flowtrio") or {}), "withheld": True}}


def is_withheld(message: Mapping[str, Any]) -> bool:
    """Whether *message* belongs to a turn whose answer its provider withheld."""
    private = message.get("flowtrio")
    return bool(private) and isinstance(private, Mapping) and bool(private.get("withheld"))


def without_withheld(messages: Iterable[M]) -> list[M]:
    """What of a conversation may be sent: a turn that was refused once would be refused again.

    A run marks all that it said in such a turn. Where only the question is marked, by whoever kept
    the conversation, what answers it goes with it: it would stand behind another's answer.
    """
    kept: list[M] = []
    is_after = False
    for message in messages:
        if is_withheld(message):
            is_after = True
        elif not is_after or _begins_anew(message, kept):
            is_after = False
            kept.append(message)
    return kept


def _begins_anew(message: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> bool:
    """Whether *message*, behind what was withheld, belongs to what is *kept*, or to nothing."""
    match message.get("role"):
        case "tool":
            return False
        case "assistant":
            return bool(kept) and kept[-1].get("role") in ("user", "tool")
        case _:
            return True


def result_message(id: str, content: str | list[Any]) -> Message:
    """What the model is told of the call of this id: a text, or parts."""
    return {"role": "tool", "tool_call_id": id, "content": content}
