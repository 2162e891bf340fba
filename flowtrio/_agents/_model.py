"""One model turn: a client's chunks become a message in the run's log.

Waiting for the model is limited, see `_watch`; waiting for the reader is not.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from flowtrio._core._call_rules import UNFIT_TO_RUN
from flowtrio._core._chunks import (
    Chunk,
    Completion,
    FinishReason,
    ToolCall,
    Usage,
    check_told,
    least_usage,
)
from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import (
    ProviderError,
    RemoteProtocolError,
    withheld_reply,
)
from flowtrio._core._fit import without_withheld
from flowtrio._core._halves import Halves
from flowtrio._core._telling import tell
from flowtrio._core._values import check_json, clean_text, copy_json
from flowtrio._run._ending import blame
from flowtrio._run._frame import Frame, is_cancelled

from ._watch import Watch
from ._written import WrittenCalls

if TYPE_CHECKING:
    from flowtrio._core._transcript import Reply
    from flowtrio._run._info import RunInfo
    from flowtrio._run._run import Run
    from flowtrio.abc import LLMClient

_FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")


class Turn:
    """One model reply on its way through a run."""

    def __init__(
        self, frame: Frame, client: LLMClient, reply: Reply, *, writes_calls: bool = True
    ) -> None:
        self.owner = frame
        self.run: Run = frame.run
        simulation = self.run.info.simulation
        self.client = client if simulation is None else simulation.client(client)
        self.reply = reply
        self.message_id = reply.message_id
        self.has_failed = False
        self.cut_calls = 0
        """Calls of the reply that did not run since it was cut."""
        self._provider: str | None = None
        self._requested_model: str | None = None
        self._first_token: float | None = None
        """Seconds until the model said something; None before."""
        self._asked_at: float | None = None
        self._asked_model: object = None
        self._has_spoken = False
        """Whether it said something since the last reset."""
        self._calls = WrittenCalls(frame, reply.message_id, are_told=writes_calls)
        self._hidden = 0
        """Characters of reasoning."""
        self._lost = Usage()
        """What was spent on attempts that failed."""
        self._reasoning = StringIO()
        self._parts: list[dict[str, Any]] = []
        self._watch = Watch(self.run.clock)
        self._refusal: ProviderError | None = None
        """With what its host refused to answer, if it did for what was asked."""
        self._is_closed = False
        """Whether it was ended from elsewhere."""

    # The turn

    async def run_turn(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        options: dict[str, Any],
    ) -> tuple[Completion, list[tuple[str, ToolCall]]]:
        """Ask the model and emit what it says.

        Returns:
          The completion, and its calls with the ids that they have in this run.

        """
        run, frame = self.run, self.owner
        if not await run.log.wait_for_room(frame):
            raise frame.closed("ask a model")
        run.log.law.begin_message(self.message_id, frame.agent)
        run.log.opened.add(self.message_id, self)
        try:
            final = await self._stream(messages, tools, options)
            tool_calls = [_fit_call(call) for call in final.tool_calls]
        except BaseException as exc:
            if not is_cancelled(exc):
                self.has_failed = True
                blame(exc, run.info.run_id, "model")
            raise
        return await self._complete(final, tool_calls)

    async def _stream(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        options: dict[str, Any],
    ) -> Chunk:
        self._asked_model = options.get("model")
        self._identify(self.client)
        watch = self._watch
        self._asked_at = watch.start(self.client)
        try:
            with watch.scope:
                if tools:
                    options = {**options, "tools": tools}
                iterator = self.client.stream_completion(without_withheld(messages), **options)
                if inspect.isawaitable(iterator):
                    iterator = await iterator
                watch.take_over(iterator)
                try:
                    return await self._read(iterator)
                except ProviderError as exc:
                    if exc.code != "withheld":
                        raise
                    # Refused for what was asked, as a reply is that was begun and then withheld.
                    self._refusal = exc
                    return Chunk(is_final=True, finish_reason="content_filter")
                finally:
                    watch.is_waiting = False
                    await _close(iterator, self.run.limits.grace)
        finally:
            watch.stop()
        if watch.stalled is None:
            assert self._is_closed
            await trio.lowlevel.checkpoint()
            raise self.owner.closed("read a model's reply")
        raise watch.stalled

    async def _read(self, iterator: AsyncIterator[Chunk]) -> Chunk:
        final: Chunk | None = None
        frame, emit, message_id = self.owner, self.run.log.emit, self.message_id
        watch = self._watch
        halves = Halves()
        async for chunk in iterator:
            watch.is_waiting = False
            if not self._has_spoken:
                self._hear(chunk, iterator)
            if _is_plain_text(chunk) and not halves.is_waiting:
                # The usual case, for every token, without a further call: see _say.
                event = await emit(
                    EventType.MESSAGE_CHUNK,
                    {"chunk": chunk.content, "message_id": message_id},
                    frame,
                )
            else:
                chunk = halves.join(chunk)
                event = await self._say(chunk)
            if chunk.is_final:
                check_told(chunk)
                final = chunk
                break
            if event is not None:
                watch.waits_since = self.run.log.trio_time(event)
            else:
                # It said nothing, or nothing that is told yet.
                watch.heard(says_anything=_says_anything(chunk))
            watch.is_waiting = True
            if not watch.has_begun and self._has_spoken:
                watch.begin()
        if final is None:
            raise _cut()
        return final

    # Who says it, and when

    def _identify(self, source: object) -> None:
        """Learn who answers, from a client or, where that chooses among several, from its reply."""
        self._provider = _word(getattr(source, "provider", self._provider))
        model = self._asked_model or getattr(source, "model", self._requested_model)
        self._requested_model = _word(model)

    def _hear(self, chunk: Chunk, iterator: AsyncIterator[Chunk]) -> None:
        """Note the first chunk that says anything; another client may answer after a reset."""
        self._identify(iterator)
        self._has_spoken = _says_anything(chunk)
        if self._has_spoken and self._first_token is None:
            self._first_token = self._duration()

    def _duration(self) -> float | None:
        """Seconds since the model was asked; None if it was not."""
        return None if self._asked_at is None else self.run.log.now() - self._asked_at

    def _origin(self) -> dict[str, Any]:
        """The keys of MESSAGE_COMPLETE that tell who was asked, how long that took, and where."""
        return {
            "provider": self._provider,
            "requested_model": self._requested_model,
            "duration": self._duration(),
            "first_token": self._first_token,
            "parent_call_id": self.owner.enclosing_call,
        }

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
        told, log = {"message_id": self.message_id, "reason": _reason(chunk.reset)}, self.run.log
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

    # The end of the turn

    async def _complete(
        self, final: Chunk, tool_calls: list[ToolCall]
    ) -> tuple[Completion, list[tuple[str, ToolCall]]]:
        run, frame = self.run, self.owner
        calls = self._calls.match(tool_calls)
        message = run.log.law.open_message(self.message_id)
        content = "" if message is None else message.text.getvalue()
        usage = self._spent(len(content), final) + self._lost
        told = None if final.usage is None else usage
        finish_reason = _known_reason(final.finish_reason, calls)
        self.reply.carry, self.reply.calls = final.carry, calls
        event = await frame.emit(
            EventType.MESSAGE_COMPLETE,
            {
                "message_id": self.message_id,
                "content": content,
                "finish_reason": finish_reason,
                "usage": None if told is None else told.to_dict(),
                "model": None if final.model is None else clean_text(final.model),
                **self._origin(),
            },
        )
        if event is None:
            raise frame.closed("complete a model's reply")
        frame.add_usage(usage)
        self._calls.forget_others({call_id for call_id, _ in calls})
        if finish_reason in UNFIT_TO_RUN:
            await self._calls.end_unfit(calls, UNFIT_TO_RUN[finish_reason])
            self.cut_calls, calls, tool_calls = len(calls), [], []
        if finish_reason == "content_filter":
            raise self._withheld(final.raw_finish_reason)
        return Completion(
            content=content,
            reasoning=self._reasoning.getvalue(),
            parts=self._parts,
            tool_calls=tool_calls,
            finish_reason=finish_reason,
            raw_finish_reason=final.raw_finish_reason,
            usage=told,
            model=final.model,
            carry=final.carry,
        ), calls

    def _withheld(self, raw: str | None) -> ProviderError | RemoteProtocolError:
        exc = self._refusal or withheld_reply(None if raw is None else clean_text(str(raw))[:100])
        blame(exc, self.run.info.run_id, "model")
        return exc

    def brackets(self) -> set[str]:
        """The keys of what this turn opened."""
        return {self.message_id, *self._calls.brackets()}

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        self._is_closed = True
        self._watch.scope.cancel(reason=f"message {self.message_id} was ended")
        message = self.run.log.law.open_message(self.message_id)
        usage = self._spent(0 if message is None else message.text.tell()) + self._lost
        self.owner.add_usage(usage)
        return {
            "finish_reason": "error" if self.has_failed else "cancelled",
            "usage": usage.to_dict(),
            **self._origin(),
        }

    def _spent(self, characters: int, told: Chunk | None = None) -> Usage:
        """What was spent: by what was seen of it at least, or more as its host told."""
        hidden = self._hidden + self._calls.characters
        usage, model = least_usage(characters + hidden, self._reasoning.tell()), None
        if told is not None and told.usage is not None:
            usage, model = _at_least(told.usage, usage), told.model
        return _priced(self.run.info, usage, model, self._requested_model)


def _known_reason(given: FinishReason | None, calls: Sequence[object]) -> FinishReason:
    """Why the model stopped, in one of our words."""
    if given is not None and given in _FINISH_REASONS:
        return given
    return "tool_calls" if calls else "stop"


def _cut() -> RemoteProtocolError:
    words = "the model's stream ended without its finish mark"
    return RemoteProtocolError(words, code="stream_cut", retryable=True)


def _reason(given: object) -> str:
    """Why a reply begins anew, as its event tells."""
    if not isinstance(given, str):
        raise TypeError(f"Chunk.reset: expected a str or None, got {type(given).__name__}")
    return _word(given) or "reset"


async def _close(iterator: Any, grace: float) -> None:
    """Close the client's iterator, on every path; it gets the grace for its own cleanup."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is None:
        return
    with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
        await aclose()


def _at_least(usage: Usage, least: Usage) -> Usage:
    """*usage*, and of what its host did not count what was seen of it."""
    if usage.completion_tokens or usage.quality == "measured":
        return usage
    return msgspec.structs.replace(
        usage,
        completion_tokens=least.completion_tokens,
        reasoning_tokens=least.reasoning_tokens,
        quality="lower_bound",
    )


def _priced(info: RunInfo, usage: Usage, *models: str | None) -> Usage:
    """*usage* with its cost, by the first of *models* that has a price."""
    prices = info.prices
    if prices is None:
        return usage
    try:
        return prices.priced(usage, models)
    except Exception as exc:
        tell(logging.ERROR, "run %s: the price table failed", info.run_id, exc=exc)
        return usage


def _is_plain_text(chunk: Chunk) -> bool:
    return (
        chunk.content.isascii()
        and chunk.content != ""
        and not (chunk.reasoning or chunk.tool_args or chunk.parts or chunk.is_final)
        and chunk.reset is None
    )


def _says_anything(chunk: Chunk) -> bool:
    said = (chunk.content, chunk.reasoning, chunk.tool_args, chunk.tool_calls, chunk.parts)
    return any(said)


def _word(value: object) -> str | None:
    """*value* as the log can keep it, if it is a text."""
    # A foreign client's attributes may be anything; an enum's member, say, is more than a text.
    return (clean_text(str.__str__(value)) or None) if isinstance(value, str) else None


def _fit_call(call: ToolCall) -> ToolCall:
    """*call* as the log can keep it; arguments that are no JSON are as those that do not parse."""
    # Only clients that are not ours give such calls: codecs decode strictly.
    arguments = call.arguments
    if arguments is not None:
        try:
            fit = check_json(arguments, "arguments")
        except (TypeError, ValueError):
            fit = None
        arguments = fit if isinstance(fit, dict) else None
    if not isinstance(call.id, str | None):
        raise TypeError(f"ToolCall.id: expected a str, got {type(call.id).__name__}")
    name = clean_text(call.name) or "unnamed"
    return ToolCall(call.id or "", name, arguments, call.raw, call.carry)
