"""Tool calls that arrive in fragments."""

from __future__ import annotations

import json
from typing import Any

import attrs

from flowtrio._core._chunks import ToolArgs, ToolCall

from ._json import decode_arguments


@attrs.define(eq=False)
class _Written:
    """A call that the model is writing."""

    id: str = ""
    name: str = ""
    pieces: list[str] = attrs.Factory(list)
    whole: dict[str, Any] | None = None
    """Arguments that came decoded, as some servers send them."""
    carry: dict[str, Any] | None = None


class CallWriter:
    """Puts the fragments of a reply's calls together, in the order in which they began."""

    __slots__ = ("_calls", "_places")

    def __init__(self) -> None:
        self._calls: list[_Written] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        """Calls begun."""
        return len(self._calls)

    def add(
        self,
        index: int | None,
        id: str,
        name: str,
        arguments: str | dict[str, Any] | None,
        carry: dict[str, Any] | None = None,
    ) -> ToolArgs:
        """Take a fragment.

        Args:
          index: The call's place as the server counts, or None where it does not count.
          id: The call's id, or empty.
          name: The tool's name, or empty.
          arguments: A piece of their text, or all of them decoded.
          carry: What goes back with this call.

        """
        place = self._place(index, id, name)
        call = self._calls[place]
        call.id = call.id or id
        call.name = call.name or name
        call.carry = carry if carry is not None else call.carry
        if isinstance(arguments, dict):
            call.whole = arguments
            arguments = json.dumps(arguments, ensure_ascii=False)
        elif arguments:
            call.pieces.append(arguments)
        return ToolArgs(place, call.id, call.name, arguments or "")

    def _place(self, index: int | None, id: str, name: str) -> int:
        if index is not None:
            place = self._places.get(index)
            if place is not None and not self._is_other(self._calls[place], id):
                return place
            self._places[index] = len(self._calls)
        elif self._calls and (self._calls[-1].id == id if id else not name):
            return len(self._calls) - 1
        self._calls.append(_Written())
        return len(self._calls) - 1

    @staticmethod
    def _is_other(call: _Written, id: str) -> bool:
        """Whether *id* begins another call although the server counts it in the same place."""
        return bool(id and call.id and call.id != id)

    def finish(self) -> list[ToolCall]:
        """The calls as they are now; arguments that do not parse are None."""
        return [self._finish(call) for call in self._calls]

    @staticmethod
    def _finish(call: _Written) -> ToolCall:
        if call.whole is not None and not call.pieces:
            raw = json.dumps(call.whole, ensure_ascii=False)
            return ToolCall(call.id, call.name, call.whole, raw, call.carry)
        raw = "".join(call.pieces)
        return ToolCall(call.id, call.name, decode_arguments(raw), raw, call.carry)
