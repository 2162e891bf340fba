"""Tool calls that arrive in fragments."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

from flowtrio._core._chunks import ToolArgs, ToolCall
from flowtrio._core._values import clean_text

from ._json import decode_arguments

_SIGNS: Final = re.compile(r'\\.|[{}[\]"\\]', re.DOTALL)
"""Escapes, and what may open or close something."""


@attrs.define(eq=False)
class _Nesting:
    """Counts the brackets of JSON that comes in pieces; linear in its length."""

    is_closed: bool = False
    """Whether the first value, an object or a list, has ended."""
    _depth: int = 0
    _is_text: bool = False
    _is_cut: bool = False
    """Whether the last piece ended within an escape."""

    def add(self, piece: str) -> None:
        """Take a piece."""
        if self._is_cut and piece:
            piece, self._is_cut = piece[1:], False
        for sign in _SIGNS.findall(piece):
            if sign == '"':
                self._is_text = not self._is_text
            elif sign == "\\":
                self._is_cut = True
            elif len(sign) == 1 and not self._is_text:
                self._depth += 1 if sign in "{[" else -1
                self.is_closed = self.is_closed or self._depth == 0


@attrs.define(eq=False)
class _Written:
    """A call that the model is writing."""

    id: str = ""
    name: str = ""
    pieces: list[str] = attrs.Factory(list)
    whole: dict[str, Any] | None = None
    """Arguments that came decoded, as some servers send them."""
    carry: dict[str, Any] | None = None
    _nesting: _Nesting = attrs.Factory(_Nesting)
    _seen: int = 0
    """Pieces whose brackets were counted."""

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are an object already, so that nothing can be added to them."""
        for piece in self.pieces[self._seen :]:
            self._nesting.add(piece)
        self._seen = len(self.pieces)
        return self.whole is not None or self._nesting.is_closed

    def is_other(self, id: str, name: str, arguments: str | dict[str, Any] | None) -> bool:
        """Whether a fragment in this call's place begins another one.

        Some hosts count every call as the first, some give each fragment an id of its own, and some
        repeat the name with each. So a name decides, and whether this call's arguments are whole.
        """
        has_other_id = bool(id and self.id and id != self.id)
        if not name or not self.name:
            return has_other_id and self.is_whole and bool(arguments)
        if name != self.name:
            return True
        begins = isinstance(arguments, dict) or (arguments or "").lstrip().startswith("{")
        if self.is_whole:
            return begins or has_other_id
        return has_other_id and not self.pieces and not arguments


class CallWriter:
    """Puts the fragments of a reply's calls together, in the order in which they began."""

    __slots__ = ("_calls", "_ids", "_places")

    def __init__(self) -> None:
        self._calls: list[_Written] = []
        self._places: dict[int, int] = {}
        self._ids: dict[str, int] = {}
        """Where each id was told last."""

    def __len__(self) -> int:
        """Calls begun."""
        return len(self._calls)

    def add(
        self,
        index: int | None,
        id: str,
        name: str,
        arguments: Any,
        carry: dict[str, Any] | None = None,
    ) -> ToolArgs:
        """Take a fragment.

        Args:
          index: The call's place as the server counts, or None where it does not count.
          id: The call's id, or empty.
          name: The tool's name, or empty.
          arguments: A piece of their text, or all of them decoded. Of any other type than these
            they are none that parse: a call with them is not one without arguments.
          carry: What goes back with this call.

        """
        if arguments is not None and not isinstance(arguments, str | dict):
            arguments = json.dumps(arguments)
        place = self._place(index, id, name, arguments)
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

    def _place(
        self, index: int | None, id: str, name: str, arguments: str | dict[str, Any] | None
    ) -> int:
        place = self._known_place(index, id, name)
        if place is None or self._calls[place].is_other(id, name, arguments):
            place = len(self._calls)
            self._calls.append(_Written())
        if index is not None:
            self._places[index] = place
        if id:
            self._ids[id] = place
        return place

    def _known_place(self, index: int | None, id: str, name: str) -> int | None:
        """Where a fragment goes on, unless it turns out to begin another call."""
        if index is not None:
            return self._places.get(index)
        if id in self._ids:
            return self._ids[id]
        if not self._calls or (id and name and self._calls[-1].id):
            # Uncounted, and with an id of its own.
            return None
        return len(self._calls) - 1

    def finish(self) -> list[ToolCall]:
        """The calls as they are now; arguments that do not parse are None."""
        return [self._finish(call) for call in self._calls]

    @staticmethod
    def _finish(call: _Written) -> ToolCall:
        raw = "".join(call.pieces)
        if call.whole is not None and not raw:
            raw = json.dumps(call.whole, ensure_ascii=False)
        # Joined, halves of a character are one; read again, what is no JSON is no argument.
        raw = clean_text(raw)
        return ToolCall(call.id, call.name, decode_arguments(raw), raw, call.carry)
