"""The calls of a model's reply: while the model writes them, and those that its provider runs."""

from __future__ import annotations

from collections.abc import Container, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from flowtrio._core._chunks import ToolArgs, ToolCall
from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._values import clean_text

if TYPE_CHECKING:
    from flowtrio._run._frame import Frame


@attrs.define(eq=False)
class _WrittenCall:
    """A call that the model is writing, or one that its provider runs."""

    owner: Frame
    call_id: str
    provider_id: str
    name: str
    text: str = ""
    """Fragments that came before the name."""
    written: StringIO = attrs.field(factory=StringIO)
    """Its arguments as far as they were told."""

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        return {"duration": self.owner.run.log.seconds_since(self.call_id)}

    def becomes(self, call: ToolCall) -> bool:
        """Whether what was told of it is what *call* says: else that is another call."""
        return clean_text(self.name) == call.name and _is_text_of(
            self.written.getvalue(), call.arguments
        )


class WrittenCalls:
    """The calls of one reply that have no end yet."""

    __slots__ = ("_are_told", "_message_id", "_of_provider", "_owner", "_written", "characters")

    def __init__(self, owner: Frame, message_id: str, *, are_told: bool) -> None:
        self._owner = owner
        self._message_id = message_id
        self._are_told = are_told
        """Whether they will be run as they are, and so are told of while they are written."""
        self._written: dict[int, _WrittenCall] = {}
        self._of_provider: dict[str, _WrittenCall] = {}
        self.characters = 0
        """What was told of arguments."""

    def clear(self) -> None:
        """The reply begins anew."""
        self._written.clear()
        self._of_provider.clear()
        self.characters = 0

    def brackets(self) -> set[str]:
        """The keys of those that were opened."""
        return {call.call_id for call in (*self._written.values(), *self._of_provider.values())}

    # While the model writes

    async def write(self, args: ToolArgs) -> AgentEvent | None:
        """Take a fragment of a call's arguments; gives the event that tells of it, if any does."""
        log = self._owner.run.log
        call = self._written.get(args.index)
        if call is None:
            call_id = log.opened.new_id("c")
            call = self._written[args.index] = _WrittenCall(
                self._owner, call_id, args.id, args.name
            )
        call.provider_id = call.provider_id or args.id
        call.name = call.name or args.name
        call.text += args.text
        if not call.name or not call.text or not self._are_told:
            return None
        delta, call.text = clean_text(call.text), ""
        self.characters += len(delta)
        log.opened.add(call.call_id, call)
        event = await self._owner.emit(
            EventType.TOOL_CALL_ARGS,
            {
                "call_id": call.call_id,
                "tool_name": clean_text(call.name),
                "delta": delta,
                "message_id": self._message_id,
            },
        )
        call.written.write(delta)
        return event

    def match(self, calls: Sequence[ToolCall]) -> list[tuple[str, ToolCall]]:
        """Give each final call the id under which its arguments were streamed."""
        log = self._owner.run.log
        if not self._written:
            # Clients need not tell of calls while the model writes them.
            return [(log.opened.new_id("c"), call) for call in calls]
        written = [call for _, call in sorted(self._written.items())]
        matched = []
        for call in calls:
            fitting = [w for w in written if w.becomes(call)]
            same = next((w for w in fitting if call.id and w.provider_id == call.id), None)
            same = same or next(iter(fitting), None)
            if same is not None:
                written.remove(same)
            matched.append((log.opened.new_id("c") if same is None else same.call_id, call))
        return matched

    def forget_others(self, wanted: Container[str]) -> None:
        """A call that was begun and is not among the final ones was taken back by the model."""
        log = self._owner.run.log
        begun = {call.key for call in log.law.calls_of(self._message_id)}
        log.close({key for key in begun if key not in wanted})
        for call in self._written.values():
            if call.call_id not in wanted:
                log.opened.forget(call.call_id)

    async def end_unfit(self, calls: Sequence[tuple[str, ToolCall]], why: str) -> None:
        """End the calls of a reply that was cut or withheld: they may not run."""
        log = self._owner.run.log
        for call_id, call in calls:
            told = {"outcome": "cancelled", "result": None, "error": why, "duration": None}
            data = {"call_id": call_id, "tool_name": call.name, **told}
            if log.law.open_call(call_id) is not None:
                log.record_end(data, self._owner)
            else:
                await self._owner.emit(EventType.TOOL_CALL_END, data)

    # Those that the provider runs

    def is_of_provider(self, key: str) -> bool:
        """Whether the provider runs a call of this id, and has not ended it."""
        return key in self._of_provider

    async def start_provider_call(self, part: dict[str, Any]) -> AgentEvent | None:
        """A part tells that the provider runs a call."""
        name = part["name"] or "unnamed"
        call = _WrittenCall(self._owner, self._owner.run.log.opened.new_id("c"), part["id"], name)
        self._of_provider[part["id"]] = call
        self._owner.run.log.opened.add(call.call_id, call)
        arguments = part.get("arguments")
        return await self._owner.emit(
            EventType.TOOL_CALL_START,
            {
                "call_id": call.call_id,
                "tool_name": call.name,
                "arguments": arguments if isinstance(arguments, dict) else {},
                "message_id": self._message_id,
                "provider_executed": True,
                "parent_call_id": self._owner.enclosing_call,
            },
        )

    async def end_provider_call(self, part: dict[str, Any]) -> AgentEvent | None:
        """A part tells what came of it."""
        call = self._of_provider.pop(str(part["id"]))
        error = None if part.get("error") is None else str(part["error"]) or "failed"
        return await self._owner.emit(
            EventType.TOOL_CALL_END,
            {
                "call_id": call.call_id,
                "tool_name": call.name,
                "outcome": "ok" if error is None else "error",
                "result": part.get("result"),
                "error": error,
                "duration": self._owner.run.log.seconds_since(call.call_id),
            },
        )


def _is_text_of(text: str, arguments: dict[str, Any] | None) -> bool:
    """Whether *text* is that of the arguments, as far as anybody was told of it."""
    if not text.strip() or "\\ud" in text.lower():
        # Lone surrogates are replaced in arguments, so escaped ones cannot be compared.
        return True
    try:
        written = msgspec.json.decode(text)
    except msgspec.DecodeError:
        written = None
    return bool(arguments == (written if isinstance(written, dict) else None))
