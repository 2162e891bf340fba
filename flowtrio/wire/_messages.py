"""Reading messages in OpenAI's shape, for codecs that translate them.

A run's own conversation is fit to be sent. One that an application kept, changed or wrote may hold
what some host refuses for ever: so what goes out is made fit once more, wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowtrio._core._fit import NO_TEXT, fit_arguments, is_blank, without_blank, without_withheld
from flowtrio._core._values import told

Message = Mapping[str, Any]

_SAYS = ("content", "tool_calls", "refusal", "audio", "function_call")


def to_send(messages: Sequence[Message], protocol: str) -> list[Message]:
    """What of a conversation goes into a request by *protocol*, the first step of each.

    Left out are turns that were withheld, and what says nothing; a user's message without any text
    says so. Arguments of calls that do not parse become empty.

    Raises:
      ValueError: a call is of no function, and *protocol* has no such calls.

    """
    fit = (_to_send(message, protocol) for message in without_withheld(messages))
    return [message for message in fit if message is not None]


def _to_send(message: Message, protocol: str) -> Message | None:
    content = message.get("content")
    said = _without_blank(content)
    match message["role"]:
        case "assistant":
            return _reply_to_send(message, said, protocol)
        case "tool":
            said = "" if said is None else said
        case "user":
            said = NO_TEXT if said is None else said
        case _ if said is None:
            return None
    return message if said is content else {**message, "content": said}


def _reply_to_send(message: Message, said: Any, protocol: str) -> Message | None:
    changed: dict[str, Any] = {}
    if said is not message.get("content"):
        changed["content"] = said
    calls = message.get("tool_calls")
    if calls and (fit := [_fit_call(call, protocol) for call in calls]) != calls:
        changed["tool_calls"] = fit
    fit_message = {**message, **changed} if changed else message
    says_anything = any(fit_message.get(key) for key in _SAYS)
    return fit_message if says_anything or carried_for(message, protocol) else None


def _fit_call(call: Message, protocol: str) -> Message:
    function = call.get("function")
    if not isinstance(function, Mapping):
        # Of another kind, as calls of custom tools, which only their own protocol can say.
        if protocol == "openai_chat" and isinstance(call.get(str(call.get("type"))), Mapping):
            return call
        raise ValueError(
            f"a call of type {told(call.get('type'))} in the conversation: "
            f"expected one with a function, which {protocol} can say"
        )
    arguments = fit_arguments(function.get("arguments"))
    if arguments == function.get("arguments"):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _without_blank(content: Any) -> Any:
    """A message's content without text that is blank; None where nothing remains."""
    if isinstance(content, str):
        return None if is_blank(content) else content
    if isinstance(content, list):
        kept = without_blank(content)
        return (content if len(kept) == len(content) else kept) or None
    return content


def carried_for(holder: Message, protocol: str) -> Mapping[str, Any] | None:
    """What goes back with a message, or with a call, by *protocol*, if it came by that."""
    private = holder.get("flowtrio")
    carry = private.get("carry") if isinstance(private, Mapping) else None
    carried = carry.get(protocol) if isinstance(carry, Mapping) else None
    return carried if isinstance(carried, Mapping) else None


def parts_of(content: Any) -> list[Mapping[str, Any]]:
    """A message's content as a list of parts; text becomes one, nothing none."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [part for part in content or () if isinstance(part, Mapping)]


def text_of(content: Any) -> str:
    """The text of a message's content, its other parts left out."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in parts_of(content))
