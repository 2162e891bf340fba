"""What was said of a model's reply: told as it comes, taken back, and folded together."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from flowtrio._core._chunks import Chunk, Completion, Usage, check_told, least_usage
from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import ProviderError
from flowtrio._core._values import check_json, clean_text, copy_json

from ._heard import at_least, fit_call, known_reason, priced, reset_reason
from ._written import WrittenCalls

if TYPE_CHECKING:
    from flowtrio._core._chunks import ToolCall
    from flowtrio._core._transcript import Reply
    from flowtrio._run._frame import Frame
    from flowtrio._run._run import Run


class Saying:
    """One model reply as far as it was said, and what was spent on it."""

    def __init__(self, frame: Frame, reply: Reply, *, writes_calls: bool) -> None:
        self.owner = frame
        self.run: Run = frame.run
        self.reply = reply
        self.message_id = reply.message_id
        self._requested_model: str | None = None
        self._refusal: ProviderError | None = None
        """With what its host refused to answer, if it did for what was asked."""
        self._has_spoken = False
        """Whether it said something since the last reset."""
        self._calls = WrittenCalls(frame, reply.message_id, are_told=writes_calls)
        self._hidden = 0
        """Characters of reasoning."""
        self._lost = Usage()
        """What was spent on attempts that failed."""
        self._reasoning = StringIO()
        self._parts: list[dict[str, Any]] = []

    # What the model says

    async def _say(self, chunk: Chunk) -> AgentEvent | None:
        """Emit the events of one chunk; gives the last of them."""
        frame = self.owner
        event: AgentEvent | None = None
        if chunk.reset is not None:
            event = await self._reset(chunk)
        if chunk.reasoning:
            text = clean_text(chunk.reasoning)
            self._hidden += len(text)
            event = await frame.emit(
                EventType.REASONING_CHUNK, {"chunk": text, "message_id": self.message_id}
            )
            self._reasoning.write(text)
        if chunk.content:
            event = await frame.emit(
                EventType.MESSAGE_CHUNK,
                {"chunk": clean_text(chunk.content), "message_id": self.message_id},
            )
        for part in chunk.parts:
            event = await self._say_part(part)
        for args in chunk.tool_args:
            event = await self._calls.write(args) or event
        return event

    async def _say_part(self, part: dict[str, Any]) -> AgentEvent | None:
        part = check_json(dict(part), "part of a model's message")
        has_id = isinstance(part.get("id"), str) and isinstance(part.get("name"), str)
        match part.get("type"):
            case "server_tool_call" if has_id and not self._calls.is_of_provider(part["id"]):
                return await self._calls.start_provider_call(part)
            case "server_tool_result" if self._calls.is_of_provider(str(part.get("id"))):
                return await self._calls.end_provider_call(part)
            case "refusal":
                self.reply.refusal += str(part.get("text") or "")
        self._parts.append(copy_json(part))
        return await self.owner.emit(
            EventType.MESSAGE_PART, {"message_id": self.message_id, "part": part}
        )

    async def _reset(self, chunk: Chunk) -> AgentEvent | None:
        log = self.run.log
        told = {"message_id": self.message_id, "reason": reset_reason(chunk.reset)}
        message = log.law.open_message(self.message_id)
        seen = 0 if message is None else message.text.tell()
        if not chunk.is_final:
            check_told(chunk)
        lost = self._spent(seen, None if chunk.is_final else chunk)
        log.close({call.key for call in log.law.calls_of(self.message_id)})
        event = await self.owner.emit(EventType.MESSAGE_RESET, told)
        # Not before it is recorded: who ends the run meanwhile counts what was said until then.
        self._lost += lost
        self._hidden = 0
        self._has_spoken = False
        self._calls.clear()
        self._reasoning = StringIO()
        self._parts.clear()
        self.reply.refusal = ""
        return event

    async def replace(self, given: Completion, said: Chunk | None) -> Chunk:
        """Tell *given* instead of what was said; it costs what was spent on that, and no more."""
        if self._has_spoken:
            usage, model = (None, None) if said is None else (said.usage, said.model)
            await self._reset(Chunk(reset="replaced", usage=usage, model=model))
        elif said is not None:
            self._lost += self._spent(0, said)
        self._refusal = None
        content = clean_text(given.content)
        if content:
            data = {"chunk": content, "message_id": self.message_id}
            await self.owner.emit(EventType.MESSAGE_CHUNK, data)
        return Chunk(
            is_final=True,
            tool_calls=list(given.tool_calls),
            finish_reason=given.finish_reason,
            raw_finish_reason=given.raw_finish_reason,
            usage=Usage(),
            model=given.model,
        )

    def fold(self, final: Chunk, tool_calls: list[ToolCall] | None = None) -> Completion:
        """What was said, which ends with *final*; *tool_calls* are its calls, once made fit."""
        message = self.run.log.law.open_message(self.message_id)
        content = "" if message is None else message.text.getvalue()
        usage = None if final.usage is None else self._spent(len(content), final) + self._lost
        if tool_calls is None:
            tool_calls = [fit_call(call) for call in final.tool_calls]
        return Completion(
            content=content,
            reasoning=self._reasoning.getvalue(),
            parts=copy_json(self._parts),
            tool_calls=tool_calls,
            finish_reason=known_reason(final.finish_reason, tool_calls),
            raw_finish_reason=final.raw_finish_reason,
            usage=usage,
            model=final.model,
            carry=final.carry,
        )

    def _spent(self, characters: int, told: Chunk | None = None) -> Usage:
        """What was spent: by what was seen of it at least, or more as its host told."""
        hidden = self._hidden + self._calls.characters
        usage, model = least_usage(characters + hidden, self._reasoning.tell()), None
        if told is not None and told.usage is not None:
            usage, model = at_least(told.usage, usage), told.model
        return priced(self.run.info, usage, model, self._requested_model)
