"""Reading a conversation that somebody else wrote: an application, or a store.

What is given is checked, copied and made fit, as what a run adds to it is: so the next request is
one that every provider takes, whoever kept the conversation meanwhile. What cannot be made fit is
refused, with what was expected in its place; out of a store it is left out instead, since nobody
could mend it before the next message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ._fit import (
    NO_TEXT,
    CallIds,
    Entry,
    Message,
    digest,
    fit_arguments,
    fit_name,
    is_blank,
    without_blank,
)
from ._media import told_of
from ._parts import UserMessage
from ._values import check_json, type_name

_SAYS: Final = ("content", "tool_calls", "refusal", "audio")
"""What an assistant's message may consist of."""


def read_history(given: Iterable[Mapping[str, Any]], what: str = "history") -> list[Message]:
    """Give a conversation, checked and made fit; nothing in it is shared with *given*.

    Args:
      given: The messages, in the shape of OpenAI's chat completions.
      what: Its name in messages.

    Raises:
      TypeError: it is no list of messages, or something in one is of a wrong type.
      ValueError: a role is unknown, a call has no id or no name, a result has no call, or a value
        is not JSON.

    """
    if type(given) is tuple and not given:
        return []  # Nearly every run's.
    messages = _messages(given, what)
    if not messages:
        return []
    reader = _Reader()
    for place, message in enumerate(messages):
        reader.add(message, f"{what}[{place}]")
    return reader.finish()


def going_on(given: Iterable[Mapping[str, Any]]) -> tuple[UserMessage, list[Message]]:
    """What a history asks by itself: its user's last message, and the history before that.

    Behind results of tools nothing further is said: the model goes on from them.

    Raises:
      TypeError: as `read_history`.
      ValueError: it ends with neither, so that there is nothing to answer; or as `read_history`.

    """
    match history := read_history(given):
        case [*before, {"role": "user", "content": str(text)}]:
            return UserMessage(text, text), before
        case [*before, {"role": "user", "content": [*parts]}]:
            text = "\n".join(part["text"] for part in parts if part["type"] == "text")
            return UserMessage(text, parts, tuple(told_of(parts))), before
        case [*_, {"role": "tool"}]:
            return UserMessage("", ""), history
        case _:
            raise ValueError(
                "message=None: expected a history= that ends with a user's message or with the "
                "results of tools"
            )


def recover_history(given: Any) -> tuple[list[Message], list[str]]:
    """Give a conversation out of a store, without what cannot be made fit; and why that was not."""
    reader = _Reader()
    left_out: list[str] = []
    try:
        messages = _messages(given, "messages")
    except TypeError as exc:
        return [], [str(exc)]
    for place, message in enumerate(messages):
        try:
            reader.add(message, f"messages[{place}]")
        except (TypeError, ValueError) as exc:
            left_out.append(str(exc))
    return reader.finish(), left_out


def _messages(given: Any, what: str) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"{what}: expected a list of messages, got {type_name(given)}")
    return list(given)


class _Reader:
    """Takes messages one by one, and binds results to their calls."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._ids = CallIds()
        self._waiting: dict[str, list[tuple[Entry, str]]] = {}
        """Calls without a result, by the id that was given: where they stand, and their own id."""

    def finish(self) -> list[Message]:
        return [message for entry in self._entries for message in entry.told()]

    def add(self, given: Any, what: str) -> None:
        """Take a message, or refuse it and stay as before."""
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{what}: expected a message such as {{'role': 'user', 'content': 'text'}}, got "
                f"{type_name(given)}"
            )
        message = check_json(dict(given), what)
        _check_private(message, what)
        match message.get("role"):
            case "system" | "developer":
                self._add_said(message, what, instead=None)
            case "user":
                self._add_said(message, what, instead=NO_TEXT)
            case "assistant":
                self._add_reply(message, what)
            case "tool":
                self._add_result(message, what)
            case role:
                raise ValueError(
                    f"{what}: role {role!r:.40}, expected system, developer, user, assistant or "
                    "tool"
                )

    def _add_said(self, message: Message, what: str, *, instead: str | None) -> None:
        content = _fit_content(message.get("content"), what) or instead
        if content is not None:
            self._entries.append(Entry({**message, "content": content}))

    def _add_reply(self, message: Message, what: str) -> None:
        content = message.get("content")
        if content is not None:
            message["content"] = _fit_content(content, what)
        given = message.get("tool_calls")
        if not isinstance(given, list | None):
            raise TypeError(f"{what}.tool_calls: expected a list of calls, got {type_name(given)}")
        # All are looked at before the first gets an id.
        calls = [_read_call(c, f"{what}.tool_calls[{n}]") for n, c in enumerate(given or ())]
        entry = Entry(message)
        if not calls:
            message.pop("tool_calls", None)
        else:
            message["tool_calls"] = calls
            waiting: dict[str, list[tuple[Entry, str]]] = {}
            for call in calls:
                own = self._ids.take(call["id"], f"call_{digest(call['id'])}")
                waiting.setdefault(call["id"], []).append((entry, own))
                call["id"] = entry.calls[own] = own
            # An id that comes again means the newest call of that id.
            self._waiting |= waiting
        if any(message.get(key) for key in _SAYS):
            self._entries.append(entry)

    def _add_result(self, message: Message, what: str) -> None:
        id = message.get("tool_call_id")
        if not isinstance(id, str):
            raise TypeError(f"{what}.tool_call_id: expected a call's id, got {type_name(id)}")
        content = _fit_content(message.get("content"), what) or ""
        waiting = self._waiting.get(id)
        if not waiting:
            raise ValueError(
                f"{what}: a result of {id!r:.60}, expected a call of that id before it, and one "
                "result of each"
            )
        entry, own = waiting.pop(0)
        entry.results[own] = {**message, "tool_call_id": own, "content": content}


def _read_call(call: Any, what: str) -> dict[str, Any]:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        raise TypeError(
            f"{what}: expected a call such as {{'id': 'c1', 'type': 'function', 'function': "
            "{'name': 'search', 'arguments': '{}'}}"
        )
    if call.get("type", "function") != "function":
        raise ValueError(f"{what}.type: expected 'function', got {call['type']!r:.40}")
    function = call["function"]
    for holder, key, where in ((call, "id", what), (function, "name", f"{what}.function")):
        value = holder.get(key)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{where}.{key}: expected text that is not empty, got {value!r:.40}")
    _check_private(call, what)
    arguments = _read_arguments(function.get("arguments"), what)
    fit = {**function, "name": fit_name(function["name"]), "arguments": arguments}
    return {**call, "type": "function", "function": fit}


def _read_arguments(given: Any, what: str) -> str:
    if not isinstance(given, str | dict | None):
        raise TypeError(
            f"{what}.function.arguments: expected text of a JSON object, got {type_name(given)}"
        )
    return fit_arguments(given)


def _fit_content(content: Any, what: str) -> str | list[Any] | None:
    """A message's content without text that is blank; None where nothing remains."""
    if isinstance(content, str):
        return None if is_blank(content) else content
    if not isinstance(content, list):
        raise TypeError(
            f"{what}.content: expected text or a list of parts, got {type_name(content)}"
        )
    for place, part in enumerate(content):
        _check_part(part, f"{what}.content[{place}]")
    return without_blank(content) or None


def _check_part(part: Any, what: str) -> None:
    match part:
        case {"type": "text"}:
            is_right = isinstance(part.get("text"), str)
        case {"type": "image_url"}:
            image = part.get("image_url")
            is_right = isinstance(image, dict) and isinstance(image.get("url"), str)
        case _:
            is_right = isinstance(part, dict) and isinstance(part.get("type"), str)
    if not is_right:
        raise TypeError(
            f"{what}: expected a part such as {{'type': 'text', 'text': 'words'}} or {{'type': "
            "'image_url', 'image_url': {'url': 'https://…'}}"
        )


def _check_private(holder: dict[str, Any], what: str) -> None:
    """What codecs look into has to be what they expect."""
    private = holder.get("flowtrio")
    if not isinstance(private, dict | None):
        raise TypeError(f"{what}.flowtrio: expected a dict or None, got {type_name(private)}")
    if private and not isinstance(carry := private.get("carry"), dict | None):
        raise TypeError(f"{what}.flowtrio.carry: expected a dict or None, got {type_name(carry)}")
