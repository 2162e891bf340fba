"""One model turn: a client's chunks become a message in the run's log.

Waiting for the model is limited, see `_watch`; waiting for the reader is not.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from flowtrio._core._call_rules import UNFIT_TO_RUN
from flowtrio._core._chunks import (
    Chunk,
    Completion,
    ToolCall,
    Usage,
    check_told,
)
from flowtrio._core._events import EventType
from flowtrio._core._exceptions import (
    ProviderError,
    RemoteProtocolError,
    withheld_reply,
)
from flowtrio._core._fit import without_withheld
from flowtrio._core._halves import Halves
from flowtrio._core._values import clean_text
from flowtrio._run._ending import blame
from flowtrio._run._frame import Frame, is_cancelled

from ._around import Exchange
from ._budget import check_budget, check_request
from ._heard import (
    close_reply,
    cut_stream,
    fit_call,
    is_plain_text,
    says_anything,
    word_of,
)
from ._saying import Saying
from ._watch import Watch

if TYPE_CHECKING:
    from flowtrio._core._transcript import Reply
    from flowtrio.abc import LLMClient


class Turn(Saying):
    """One model reply on its way through a run."""

    def __init__(
        self, frame: Frame, client: LLMClient, reply: Reply, *, writes_calls: bool = True
    ) -> None:
        super().__init__(frame, reply, writes_calls=writes_calls)
        simulation = self.run.info.simulation
        self.client = client if simulation is None else simulation.client(client)
        self.has_failed = False
        self.cut_calls = 0
        """Calls of the reply that did not run since it was cut."""
        self._provider: str | None = None
        self._first_token: float | None = None
        """Seconds until the model said something; None before."""
        self._asked_at: float | None = None
        self._asked_model: object = None
        self._watch = Watch(self.run.clock)
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
            if frame.hooks.model:
                final = await Exchange(self, options).run(list(messages), list(tools))
            else:
                final = await self.stream(messages, tools, options)
            tool_calls = [fit_call(call) for call in final.tool_calls]
        except BaseException as exc:
            if not is_cancelled(exc):
                self.has_failed = True
                blame(exc, run.info.run_id, "model")
            raise
        return await self._complete(final, tool_calls)

    async def stream(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]],
        options: dict[str, Any],
    ) -> Chunk:
        """Ask the model and tell what it says, but for the end."""
        check_request(self.run)
        self.run.requests += 1
        self._asked_model = options.get("model")
        self._identify(self.client)
        watch = self._watch
        started_at = watch.start(self.client)
        self._asked_at = started_at if self._asked_at is None else self._asked_at
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
                    await close_reply(iterator, self.run.limits.grace)
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
            if is_plain_text(chunk) and not halves.is_waiting:
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
                watch.heard(says_anything=says_anything(chunk))
            watch.is_waiting = True
            if not watch.has_begun and self._has_spoken:
                watch.begin()
        if final is None:
            raise cut_stream()
        return final

    # Who says it, and when

    def _identify(self, source: object) -> None:
        """Learn who answers, from a client or, where that chooses among several, from its reply."""
        self._provider = word_of(getattr(source, "provider", self._provider))
        model = self._asked_model or getattr(source, "model", self._requested_model)
        self._requested_model = word_of(model)

    def _hear(self, chunk: Chunk, iterator: AsyncIterator[Chunk]) -> None:
        """Note the first chunk that says anything; another client may answer after a reset."""
        self._identify(iterator)
        self._has_spoken = says_anything(chunk)
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

    async def begin_again(self, reason: str, said: Chunk | None) -> None:
        """Take back what was said, which ended with *said*, or with an exception."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            raise self.owner.closed("ask a model")
        usage, model = (None, None) if said is None else (said.usage, said.model)
        if said is None and not self._has_spoken:
            # It failed before it said anything, and nobody told of a cost.
            usage = Usage()
        if await self._reset(Chunk(reset=reason, usage=usage, model=model)) is None:
            # It was ended while this waited for the reader: no event would tell of a request.
            raise self.owner.closed("ask a model")
        self._watch, self._refusal = Watch(self.run.clock), None

    # The end of the turn

    async def _complete(
        self, final: Chunk, tool_calls: list[ToolCall]
    ) -> tuple[Completion, list[tuple[str, ToolCall]]]:
        frame = self.owner
        calls = self._calls.match(tool_calls)
        whole = self.fold(final, tool_calls)
        content, told, finish_reason = whole.content, whole.usage, whole.finish_reason
        usage = self._spent(len(content), final) + self._lost
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
        check_budget(self.run)
        self._calls.forget_others({call_id for call_id, _ in calls})
        if finish_reason in UNFIT_TO_RUN:
            await self._calls.end_unfit(calls, UNFIT_TO_RUN[finish_reason])
            self.cut_calls, calls = len(calls), []
            whole = attrs.evolve(whole, tool_calls=[])
        if finish_reason == "content_filter":
            raise self._withheld(final.raw_finish_reason)
        return whole, calls

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
