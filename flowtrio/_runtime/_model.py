"""One model turn: a client's chunks become a message in the run's log.

Waiting for the model is limited, waiting for the reader is not, and the limits cost nothing for
each chunk: the turn keeps when it began to wait, and one alarm of the run's host looks at that now
and then. There are two clocks: bytes of any kind show that the host is alive, and only what is said
shows that the model is.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncIterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import trio

from flowtrio._core._chunks import (
    Chunk,
    Completion,
    ToolArgs,
    ToolCall,
    Usage,
    check_told,
    least_usage,
)
from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._exceptions import (
    DeadlineExceeded,
    ProviderError,
    RemoteProtocolError,
    withheld_reply,
)
from flowtrio._core._fit import without_withheld
from flowtrio._core._halves import Halves
from flowtrio._core._law import UNFIT_TO_RUN
from flowtrio._core._limits import ModelLimits
from flowtrio._core._telling import tell
from flowtrio._core._values import check_json, clean_text, copy_json

from ._ending import blame
from ._frame import Frame, is_cancelled

if TYPE_CHECKING:
    from flowtrio._core._transcript import Reply
    from flowtrio.abc import LLMClient

    from ._clock import Alarm
    from ._run import Run

_FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")


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
        self._writes_calls = writes_calls
        """Whether the calls that the model writes will be run as they are, and so are shown."""
        self._calls: dict[int, _WrittenCall] = {}
        self._provider_calls: dict[str, _WrittenCall] = {}
        self._hidden = 0
        """Characters of reasoning and of arguments."""
        self._lost = Usage()
        """What was spent on attempts that failed."""
        self._reasoning = StringIO()
        self._parts: list[dict[str, Any]] = []
        # The watch
        self._scope = trio.CancelScope()
        self._is_waiting = True
        self._waits_since = 0.0
        self._pinged_at = -math.inf
        self._has_begun = False
        """Whether anything was said since the model was asked."""
        self._iterator: Any = None
        self._refusal: ProviderError | None = None
        """With what its host refused to answer, if it did for what was asked."""
        self._stalled: DeadlineExceeded | None = None
        self._is_closed = False
        """Whether it was ended from elsewhere."""
        self._alarm: Alarm | None = None

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
        self._start_watch()
        try:
            with self._scope:
                if tools:
                    options = {**options, "tools": tools}
                iterator = self.client.stream_completion(without_withheld(messages), **options)
                if inspect.isawaitable(iterator):
                    iterator = await iterator
                self._iterator = iterator
                if isinstance(getattr(iterator, "limits", None), ModelLimits):
                    # This turn watches; a scope around each of the client's reads would cost more
                    # than all the rest.
                    setattr(iterator, "limits", None)  # noqa: B010 - not in the interface
                try:
                    return await self._read(iterator)
                except ProviderError as exc:
                    if exc.code != "withheld":
                        raise
                    # Refused for what was asked, as a reply is that was begun and then withheld.
                    self._refusal = exc
                    return Chunk(is_final=True, finish_reason="content_filter")
                finally:
                    await self._close(iterator)
        finally:
            assert self._alarm is not None
            self.run.clock.forget(self._alarm)
            # It leads back here: see `Host.host` on what waits for the garbage collector.
            self._alarm = None
        if self._stalled is None:
            assert self._is_closed
            await trio.lowlevel.checkpoint()
            raise self.owner.closed("read a model's reply")
        raise self._stalled

    async def _read(self, iterator: AsyncIterator[Chunk]) -> Chunk:
        final: Chunk | None = None
        frame, emit, message_id = self.owner, self.run.log.emit, self.message_id
        halves = Halves()
        async for chunk in iterator:
            self._is_waiting = False
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
                self._waits_since = self.run.log.trio_time(event)
            else:
                # It said nothing, or nothing that is told yet.
                self._heard(chunk)
            self._is_waiting = True
            if not self._has_begun and self._has_spoken:
                self._has_begun = True
                self._watch()
        if final is None:
            raise RemoteProtocolError(
                "the model's stream ended without its finish mark",
                code="stream_cut",
                retryable=True,
            )
        return final

    async def _close(self, iterator: Any) -> None:
        """Close the client's iterator, on every path; it gets the grace for its own cleanup."""
        self._is_waiting = False
        aclose = getattr(iterator, "aclose", None)
        if aclose is None:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self.run.limits.grace):
            await aclose()

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
            event = await self._reset(chunk.reset)
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
            event = await self._say_args(args) or event
        return event

    async def _say_args(self, args: ToolArgs) -> AgentEvent | None:
        call = self._calls.get(args.index)
        if call is None:
            call_id = self.run.log.opened.new_id("c")
            call = self._calls[args.index] = _WrittenCall(self.owner, call_id, args.id, args.name)
        call.provider_id = call.provider_id or args.id
        call.name = call.name or args.name
        call.text += args.text
        if not call.name or not call.text or not self._writes_calls:
            return None
        delta, call.text = clean_text(call.text), ""
        self._hidden += len(delta)
        self.run.log.opened.add(call.call_id, call)
        event = await self.owner.emit(
            EventType.TOOL_CALL_ARGS,
            {
                "call_id": call.call_id,
                "tool_name": clean_text(call.name),
                "delta": delta,
                "message_id": self.message_id,
            },
        )
        call.written.write(delta)
        return event

    async def _say_part(self, part: dict[str, Any]) -> AgentEvent | None:
        part = check_json(dict(part), "part of a model's message")
        has_id = isinstance(part.get("id"), str) and isinstance(part.get("name"), str)
        match part.get("type"):
            case "server_tool_call" if has_id and part["id"] not in self._provider_calls:
                return await self._start_provider_call(part)
            case "server_tool_result" if str(part.get("id")) in self._provider_calls:
                return await self._end_provider_call(part)
            case "refusal":
                self.reply.refusal += str(part.get("text") or "")
        self._parts.append(copy_json(part))
        return await self.owner.emit(
            EventType.MESSAGE_PART, {"message_id": self.message_id, "part": part}
        )

    async def _start_provider_call(self, part: dict[str, Any]) -> AgentEvent | None:
        name = part["name"] or "unnamed"
        call = _WrittenCall(self.owner, self.run.log.opened.new_id("c"), part["id"], name)
        self._provider_calls[part["id"]] = call
        self.run.log.opened.add(call.call_id, call)
        arguments = part.get("arguments")
        return await self.owner.emit(
            EventType.TOOL_CALL_START,
            {
                "call_id": call.call_id,
                "tool_name": call.name,
                "arguments": arguments if isinstance(arguments, dict) else {},
                "message_id": self.message_id,
                "provider_executed": True,
                "parent_call_id": self.owner.enclosing_call,
            },
        )

    async def _end_provider_call(self, part: dict[str, Any]) -> AgentEvent | None:
        call = self._provider_calls.pop(str(part["id"]))
        error = None if part.get("error") is None else str(part["error"]) or "failed"
        return await self.owner.emit(
            EventType.TOOL_CALL_END,
            {
                "call_id": call.call_id,
                "tool_name": call.name,
                "outcome": "ok" if error is None else "error",
                "result": part.get("result"),
                "error": error,
                "duration": self.run.log.seconds_since(call.call_id),
            },
        )

    async def _reset(self, given: str) -> AgentEvent | None:
        if not isinstance(given, str):
            raise TypeError(f"Chunk.reset: expected a str or None, got {type(given).__name__}")
        reason = _word(given) or "reset"
        log = self.run.log
        message = log.law.open_message(self.message_id)
        self._lost += self._lower_bound(0 if message is None else message.text.tell())
        self._hidden = 0
        log.close({call.key for call in log.law.calls_of(self.message_id)})
        self._has_spoken = False
        self._calls.clear()
        self._provider_calls.clear()
        self._reasoning = StringIO()
        self._parts.clear()
        self.reply.refusal = ""
        return await self.owner.emit(
            EventType.MESSAGE_RESET, {"message_id": self.message_id, "reason": reason}
        )

    # The end of the turn

    async def _complete(
        self, final: Chunk, tool_calls: list[ToolCall]
    ) -> tuple[Completion, list[tuple[str, ToolCall]]]:
        run, frame = self.run, self.owner
        calls = self._match_calls(tool_calls)
        message = run.log.law.open_message(self.message_id)
        content = "" if message is None else message.text.getvalue()
        told = None
        if final.usage is not None:
            told = self._priced(self._at_least(final.usage, len(content)), final.model) + self._lost
        usage = self._lower_bound(len(content)) + self._lost if told is None else told
        finish_reason = final.finish_reason
        if finish_reason not in _FINISH_REASONS:
            finish_reason = "tool_calls" if calls else "stop"
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
        # A call that was begun and is not among the final ones was taken back by the model.
        wanted = {call_id for call_id, _ in calls}
        begun = {call.key for call in run.log.law.calls_of(self.message_id)}
        run.log.close(begun - wanted)
        for call in self._calls.values():
            if call.call_id not in wanted:
                run.log.opened.forget(call.call_id)
        if finish_reason in UNFIT_TO_RUN:
            await self._end_unfit(calls, UNFIT_TO_RUN[finish_reason])
            self.cut_calls, calls, tool_calls = len(calls), [], []
        if finish_reason == "content_filter":
            raise self._withheld(final.raw_finish_reason)
        completion = Completion(
            content=content,
            reasoning=self._reasoning.getvalue(),
            parts=self._parts,
            tool_calls=tool_calls,
            finish_reason=finish_reason,
            raw_finish_reason=final.raw_finish_reason,
            usage=told,
            model=final.model,
            carry=final.carry,
        )
        return completion, calls

    async def _end_unfit(self, calls: Sequence[tuple[str, ToolCall]], why: str) -> None:
        """End the calls of a reply that was cut or withheld: they may not run."""
        log = self.run.log
        for call_id, call in calls:
            told = {"outcome": "cancelled", "result": None, "error": why, "duration": None}
            data = {"call_id": call_id, "tool_name": call.name, **told}
            if log.law.open_call(call_id) is not None:
                log.record_end(data, self.owner)
            else:
                await self.owner.emit(EventType.TOOL_CALL_END, data)

    def _withheld(self, raw: str | None) -> ProviderError | RemoteProtocolError:
        exc = self._refusal or withheld_reply(None if raw is None else clean_text(str(raw))[:100])
        blame(exc, self.run.info.run_id, "model")
        return exc

    def _match_calls(self, calls: Sequence[ToolCall]) -> list[tuple[str, ToolCall]]:
        """Give each final call the id under which its arguments were streamed."""
        if not self._calls:
            # Clients need not tell of calls while the model writes them.
            return [(self.run.log.opened.new_id("c"), call) for call in calls]
        written = [call for _, call in sorted(self._calls.items())]
        matched = []
        for call in calls:
            fitting = [w for w in written if w.becomes(call)]
            same = next((w for w in fitting if call.id and w.provider_id == call.id), None)
            same = same or next(iter(fitting), None)
            if same is not None:
                written.remove(same)
            matched.append(
                (self.run.log.opened.new_id("c") if same is None else same.call_id, call)
            )
        return matched

    def brackets(self) -> set[str]:
        """The keys of what this turn opened."""
        calls = [*self._calls.values(), *self._provider_calls.values()]
        return {self.message_id, *(call.call_id for call in calls)}

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        self._is_closed = True
        self._scope.cancel(reason=f"message {self.message_id} was ended")
        message = self.run.log.law.open_message(self.message_id)
        usage = self._lower_bound(0 if message is None else message.text.tell()) + self._lost
        self.owner.add_usage(usage)
        return {
            "finish_reason": "error" if self.has_failed else "cancelled",
            "usage": usage.to_dict(),
            **self._origin(),
        }

    def _at_least(self, usage: Usage, characters: int) -> Usage:
        """*usage*, and of what its host did not count what was seen of it."""
        if usage.completion_tokens or usage.quality == "measured":
            return usage
        least = least_usage(characters + self._hidden, self._reasoning.tell())
        return msgspec.structs.replace(
            usage,
            completion_tokens=least.completion_tokens,
            reasoning_tokens=least.reasoning_tokens,
            quality="lower_bound",
        )

    def _lower_bound(self, characters: int) -> Usage:
        usage = least_usage(characters + self._hidden, self._reasoning.tell())
        return self._priced(usage, None)

    def _priced(self, usage: Usage, answered: str | None) -> Usage:
        """*usage* with its cost, by the model that answered, else by the one that was asked."""
        prices = self.run.info.prices
        if prices is None:
            return usage
        try:
            return prices.priced(usage, (answered, self._requested_model))
        except Exception as exc:
            tell(logging.ERROR, "run %s: the price table failed", self.run.info.run_id, exc=exc)
            return usage

    # The watch

    def _start_watch(self) -> None:
        limits = getattr(self.client, "limits", None)
        self._limits = limits if isinstance(limits, ModelLimits) else ModelLimits()
        self._waits_since = self._asked_at = trio.current_time()
        self._watch()

    def _heard(self, chunk: Chunk) -> None:
        """Note a chunk of which nothing was told: an empty one is a ping, as far as we know."""
        now = trio.current_time()
        if _says_anything(chunk):
            self._waits_since = now
        else:
            self._pinged_at = now

    def _watch(self) -> None:
        if self._alarm is not None:
            self.run.clock.forget(self._alarm)
        self._alarm = self.run.clock.call_at(self._due(self._waits_since)[1], self._look)

    def _due(self, since: float) -> tuple[str, float]:
        """Which limit strikes first, and when, of a model that was last heard of at *since*."""
        if not self._has_begun:
            return "first_token", since + self._limits.first_token
        return self._limits.due(since, self._last_ping())

    def _last_ping(self) -> float:
        """When its host last sent something that said nothing; only our clients can tell."""
        told = getattr(self._iterator, "heard_at", None)
        return max(self._pinged_at, told) if isinstance(told, float) else self._pinged_at

    def _look(self) -> None:
        now = trio.current_time()
        limit, due = self._due(self._waits_since if self._is_waiting else now)
        if now >= due:
            pings = limit != "gap" and self._last_ping() > self._waits_since
            self._stalled = self._limits.stalled(limit, pings=pings)
            self._scope.cancel(reason=f"model limit {limit}")
        else:
            self._alarm = self.run.clock.call_at(due, self._look)


def _is_plain_text(chunk: Chunk) -> bool:
    return (
        chunk.content.isascii()
        and chunk.content != ""
        and not (chunk.reasoning or chunk.tool_args or chunk.parts or chunk.is_final)
        and chunk.reset is None
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
