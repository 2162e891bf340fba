"""Planted bugs: small, deliberately wrong variants of the runtime, one or more for each law.

Each replaces one method for as long as a block lasts. What it breaks has to be noticed by the same
judge that finds nothing in the runtime as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import msgspec
import trio

from flowtrio import AgentEvent, Chunk, EventStream, EventType, RemoteProtocolError, Tool
from flowtrio._agents._calls import ActiveCall
from flowtrio._agents._model import Turn
from flowtrio._agents._opened import Question
from flowtrio._agents._plan import Plan
from flowtrio._core._snapshot import Snapshot
from flowtrio._core._transcript import Transcript
from flowtrio._run._channel import EventChannel
from flowtrio._run._frame import Frame
from flowtrio._run._inbox import Inbox
from flowtrio._run._log import EventLog
from flowtrio._run._run import Run

T = EventType


@attrs.frozen
class Bug:
    """A method of the runtime and what stands in its place."""

    law: str
    owner: type
    method: str
    wrong: Callable[..., Any]
    """Makes the wrong method of the right one."""

    def __str__(self) -> str:
        return self.wrong.__name__

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Run the block with the bug."""
        right = getattr(self.owner, self.method)
        setattr(self.owner, self.method, self.wrong(right))
        try:
            yield
        finally:
            setattr(self.owner, self.method, right)


def stamps_before_it_waits(right: Any) -> Any:
    async def emit(log: EventLog, type: EventType, data: dict[str, Any], by: Any) -> Any:
        seq = log.law.count
        event = await right(log, type, data, by)
        channel = log.channel
        if event is not None and event.seq != seq and channel.undelivered:
            queue = [channel._receive.receive_nowait() for _ in range(channel.undelivered)]
            queue[-1] = msgspec.structs.replace(event, seq=seq)
            for queued in queue:
                channel._send.send_nowait(queued)
        return event

    return emit


def sends_the_end_through_the_full_buffer(right: Any) -> Any:
    def put(channel: EventChannel, event: AgentEvent) -> None:
        if event.type is not T.DONE or channel.undelivered < channel._buffer:
            right(channel, event)

    return put


def tells_every_error(right: Any) -> Any:
    def note_error(run: Run, exc: BaseException, source: str) -> None:
        right(run, exc, source)
        data = {**SOME_ERROR, "error": type(exc).__name__, "source": source}
        run.log.channel.put(
            AgentEvent(T.ERROR, data, run.log.law.count, run.info.run_id, "root", 0.0)
        )

    return note_error


SOME_ERROR = {
    "code": "failed",
    "retryable": False,
    "deadline": None,
    "limit": None,
    "detail": None,
    "causes": [],
}


def forgets_calls_that_were_cut_off(right: Any) -> Any:
    def put(channel: EventChannel, event: AgentEvent) -> None:
        if event.type is not T.TOOL_CALL_END or event.data["outcome"] != "cancelled":
            right(channel, event)

    return put


def gives_half_of_the_text(right: Any) -> Any:
    def put(channel: EventChannel, event: AgentEvent) -> None:
        if event.type is T.MESSAGE_COMPLETE and event.data["finish_reason"] == "cancelled":
            data = {**event.data, "content": ""}
            event = msgspec.structs.replace(event, data=data)
        right(channel, event)

    return put


def tells_the_status_it_had_before_it_waited(right: Any) -> Any:
    async def set_status(log: EventLog, by: Any, reason: str | None = None) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        data = log._status_data(reason)
        if data is not None and await log._take_credit(by):
            log._record_or_give_back(T.STATE_CHANGE, data, "root")

    return set_status


def starts_tasks_that_nobody_owns(right: Any) -> Any:
    def start_soon(frame: Frame, fn: Any, args: tuple[Any, ...]) -> None:
        trio.lowlevel.spawn_system_task(fn, *args, name="a stray task")

    return start_soon


def never_waits_for_the_reader(right: Any) -> Any:
    async def take_credit(log: EventLog, by: Any) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        log.channel.credits -= 1
        return not by.is_closed

    return take_credit


def ends_calls_without_cancelling_them(right: Any) -> Any:
    def end_now(call: ActiveCall, outcome: str, error: str | None = None) -> bool:
        scope, call.scope = call.scope, trio.CancelScope()
        try:
            return bool(right(call, outcome, error))
        finally:
            call.scope = scope

    return end_now


def closes_without_cancelling(right: Any) -> Any:
    def close(run: Run, ending: Any, **how: Any) -> bool:
        nursery, run.nursery = run.nursery, None
        try:
            return bool(right(run, ending, **how))
        finally:
            run.nursery = nursery

    return close


def folds_what_was_reset(right: Any) -> Any:
    def add(snapshot: Snapshot, event: AgentEvent) -> None:
        if event.type is not T.MESSAGE_RESET:
            right(snapshot, event)

    return add


def loses_what_it_was_reading(right: Any) -> Any:
    async def receive(stream: EventStream) -> AgentEvent:
        event: AgentEvent = await right(stream)
        await trio.sleep(0.15)
        return event

    return receive


def takes_a_cut_for_the_end(right: Any) -> Any:
    async def read(turn: Turn, iterator: Any) -> Chunk:
        try:
            chunk: Chunk = await right(turn, iterator)
        except RemoteProtocolError:
            chunk = Chunk(is_final=True, finish_reason="stop")
        return chunk

    return read


def hands_on_whatever_was_written(right: Any) -> Any:
    def decode(tool: Tool[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    return decode


def gives_no_result_to_what_was_cancelled(right: Any) -> Any:
    def note_result(transcript: Transcript, data: dict[str, Any], *shown: Any) -> None:
        entry = transcript._book.open.get(data["call_id"])
        right(transcript, data, *shown)
        if entry is not None and data["outcome"] == "cancelled":
            del entry.calls[data["call_id"]]

    return note_result


def loses_what_was_not_taken(right: Any) -> Any:
    def hear_the_rest(inbox: Inbox, log: EventLog) -> None:
        inbox.is_closed = True

    return hear_the_rest


def tells_what_the_user_says_twice(right: Any) -> Any:
    def post(inbox: Inbox, said: Any, *, interrupt: bool) -> bool:
        right(inbox, said, interrupt=interrupt)
        return bool(right(inbox, said, interrupt=interrupt))

    return post


def takes_a_declined_question_for_one_that_nobody_answered(right: Any) -> Any:
    def told(question: Question) -> dict[str, Any]:
        found: dict[str, Any] = right(question)
        return {} if found.get("outcome") == "declined" else found

    return told


def runs_what_was_edited_with_its_own_arguments(right: Any) -> Any:
    async def run(plan: Plan, frame: Frame) -> Any:
        plan.keywords = {**plan.keywords, "n": 1}
        return await right(plan, frame)

    return run


BUGS = [
    Bug("L10", Plan, "run", runs_what_was_edited_with_its_own_arguments),
    Bug("L10", Question, "_told", takes_a_declined_question_for_one_that_nobody_answered),
    Bug("L11", Inbox, "hear_the_rest", loses_what_was_not_taken),
    Bug("L11", Inbox, "post", tells_what_the_user_says_twice),
    Bug("L1", EventLog, "emit", stamps_before_it_waits),
    Bug("L2", EventChannel, "put", sends_the_end_through_the_full_buffer),
    Bug("L2", Run, "note_error", tells_every_error),
    Bug("L3", EventChannel, "put", forgets_calls_that_were_cut_off),
    Bug("L3", EventChannel, "put", gives_half_of_the_text),
    Bug("L4", EventLog, "set_status", tells_the_status_it_had_before_it_waited),
    Bug("L5", Frame, "start_soon", starts_tasks_that_nobody_owns),
    Bug("L6", EventLog, "_take_credit", never_waits_for_the_reader),
    Bug("L7", ActiveCall, "end_now", ends_calls_without_cancelling_them),
    Bug("L7", Run, "close", closes_without_cancelling),
    Bug("L8", Snapshot, "add", folds_what_was_reset),
    Bug("L9", EventStream, "_receive", loses_what_it_was_reading),
    Bug("L10", Turn, "_read", takes_a_cut_for_the_end),
    Bug("L10", Tool, "decode", hands_on_whatever_was_written),
    Bug("L11", Transcript, "note_result", gives_no_result_to_what_was_cancelled),
]
