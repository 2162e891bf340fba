"""What a client asks of Responses, read from its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from flowtrio._core._limits import ServerLimits
from flowtrio._core._parts import UserMessage, read_message

from ._parts import read_content, text_of, unfit
from ._requests import Request, check_choice, chosen, fit, read_model, read_tools

_IMPOSSIBLE: Final = ("conversation", "prompt", "context_management")
_IGNORED: Final = ("reasoning", "item_reference", "mcp_call", "mcp_list_tools", "function_call")
"""Items that clients send back, and that the conversation here has already."""


@attrs.frozen(kw_only=True)
class ResponseRequest(Request):
    """A request for a response."""

    is_stored: bool
    is_background: bool
    previous: str | None
    decisions: Mapping[str, tuple[bool, str | None]] = attrs.Factory(dict)
    """What people decided of calls that need approval, and why, by the ids of what asked them."""


def read_response(
    body: Mapping[str, Any],
    limits: ServerLimits,
    *,
    roles: frozenset[str],
    settings: frozenset[str],
) -> ResponseRequest:
    """Read a request; `Refused` where it cannot be, or asks for what cannot be done."""
    _check_possible(body, settings)
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise unfit("input", "expected a text or a list of items")
    previous = body.get("previous_response_id")
    if not isinstance(previous, str | None):
        raise unfit("previous_response_id", "expected a text")
    read = _Items(limits, roles)
    for place, item in enumerate(items):
        read.add(item, f"input[{place}]")
    is_answer = bool(read.answers or read.decisions)
    return ResponseRequest(
        model=read_model(body),
        is_streamed=body.get("stream") is True,
        is_stored=body.get("store") is not False,
        is_background=body.get("background") is True,
        previous=previous,
        message=None if is_answer else read.last_message(),
        history=fit(read.messages),
        answers=read.answers,
        decisions=read.decisions,
        tools=() if body.get("tool_choice") == "none" else read_tools(body.get("tools")),
        settings=_settings(body, settings),
    )


def _check_possible(body: Mapping[str, Any], settings: frozenset[str]) -> None:
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    is_text = not isinstance(form, dict) or form.get("type") == "text"
    impossible = {"text": not is_text, **{key: bool(body.get(key)) for key in _IMPOSSIBLE}}
    for key, is_impossible in impossible.items():
        if is_impossible:
            raise unfit(key, "this is not possible here", "unsupported_parameter")
    check_choice(body, settings)


def _settings(body: Mapping[str, Any], settings: frozenset[str]) -> dict[str, Any]:
    """The fields that the model is given, by their names in chat completions."""
    reasoning, most = body.get("reasoning"), body.get("max_output_tokens")
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    renamed = {**body, "reasoning_effort": effort, "max_tokens": most}
    return chosen(renamed, settings)


@attrs.define
class _Items:
    """The items of an input, as far as they are taken."""

    limits: ServerLimits
    roles: frozenset[str]
    messages: list[dict[str, Any]] = attrs.Factory(list)
    said: list[UserMessage] = attrs.Factory(list)
    """What the user says behind all else."""
    answers: dict[str, str] = attrs.Factory(dict)
    decisions: dict[str, tuple[bool, str | None]] = attrs.Factory(dict)

    def add(self, item: Mapping[str, Any], where: str) -> None:
        match item.get("type", "message"), item.get("role"):
            case "message", "user":
                self.said.append(read_content(item.get("content"), self.limits, where))
            case "message", "assistant" | "system" | "developer" as role:
                self._keep()
                text = text_of(item.get("content"), where)
                if role in self.roles and text:
                    self.messages.append({"role": role, "content": text})
            case "function_call_output", _:
                call_id = _text(item, "call_id", where)
                self.answers[call_id] = text_of(item.get("output"), f"{where}.output")
            case "mcp_approval_response", _:
                is_approved, reason = item.get("approve") is True, item.get("reason")
                asked = _text(item, "approval_request_id", where)
                self.decisions[asked] = is_approved, reason if isinstance(reason, str) else None
            case kind, _ if kind in _IGNORED:
                pass
            case _:
                raise unfit(where, "expected a message, or the result of a call")

    def _keep(self) -> None:
        self.messages += [{"role": "user", "content": said.content} for said in self.said]
        self.said.clear()

    def last_message(self) -> UserMessage:
        """What the user says last; several messages are one."""
        said = [m for m in self.said if m.text.strip() or m.media]
        if not said:
            raise unfit("input", "expected a user's message at its end")
        return said[0] if len(said) == 1 else read_message([part for m in said for part in m])


def _text(item: Mapping[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise unfit(f"{where}.{key}", "expected a text")
    return value
