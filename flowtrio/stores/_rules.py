"""What every store has to refuse, and what it tells of a log that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import attrs

from flowtrio._core._events import AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import Fenced, LimitExceeded, LocalProtocolError, ReplayGap
from flowtrio.abc import RunHeader

_MOST_DIGITS: Final = 18
"""Of the number of a run."""


def described(before: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a conversation, with what is told of it now."""
    return {name: value for name, value in {**before, **told}.items() if value is not None}


def check_append(
    header: RunHeader,
    last: int,
    after: int,
    events: Sequence[AgentEvent],
    owner: str | None,
) -> None:
    """Refuse what is not its owner's, and events that do not go on behind the last one."""
    run_id = header.run_id
    if owner is not None and owner != header.owner:
        refuse_stranger(run_id)
    if header.ended_at is not None:
        refuse_ended(run_id, last)
    if after != last:
        refuse_place(run_id, after, last)
    check_numbers(run_id, after, events)


def check_numbers(run_id: str, after: int, events: Sequence[AgentEvent]) -> None:
    """Refuse events that are not numbered on from *after*."""
    seqs = [event.seq for event in events]
    if not seqs or seqs != list(range(after + 1, after + 1 + len(seqs))):
        raise LocalProtocolError(
            f"can't append to run {run_id!r} after seq {after}: expected events numbered on from "
            f"it, got {_range(seqs)}",
            law="L1",
        )


def refuse_ended(run_id: str, last: int) -> NoReturn:
    """Say that the log has its end."""
    raise LocalProtocolError(f"can't append to run {run_id!r}: it ended at seq {last}")


def refuse_place(run_id: str, after: int, last: int) -> NoReturn:
    """Say that the log ends elsewhere."""
    raise LocalProtocolError(
        f"can't append to run {run_id!r} after seq {after}: its last is {last}", law="L1"
    )


def _range(seqs: list[int]) -> str:
    return f"{len(seqs)} from {seqs[0]} to {seqs[-1]}" if seqs else "none"


def header_after(header: RunHeader, last: AgentEvent) -> RunHeader:
    """The header of a log whose newest event is *last*."""
    if last.type is not EventType.DONE:
        return header
    status = AgentStatus(last.data["status"])
    return attrs.evolve(header, ended_at=last.timestamp, status=status)


def check_place(run_id: str, after: int, oldest: int, last: int) -> None:
    """Refuse to read on behind *after*, a place that is gone or was never there, by a `ReplayGap`.

    The *oldest* event that is kept is one more than the *last* where nothing is.
    """
    if after < oldest - 1 or after > last:
        kept = f"seq {oldest} to {last} are kept" if oldest <= last else "nothing is kept"
        raise ReplayGap(
            f"can't read run {run_id!r} on after seq {after}: {kept}",
            run_id=run_id,
            after=after,
            oldest=oldest if oldest <= last else None,
        )


def read_place(text: str) -> int:
    """A run's number, from the text that it is handed out as; a `ValueError` if that is none."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"can't list the runs before {text!r}: expected a place that was given")
    return int(text)


def refuse_one_more(header: RunHeader, limit: str, count: int) -> NoReturn:
    """Say that the *tenant* or *session* of a run has so many of them already."""
    if limit == "tenant":
        raise LimitExceeded(
            f"tenant {header.tenant_id!r} has {count} runs, as many as it may have at once",
            limit="runs_per_tenant",
            code="tenant_busy",
        )
    raise LimitExceeded(
        f"session {header.session_id!r} is busy with {count} runs",
        limit="queue",
        code="session_busy",
    )


def check_closing(run_id: str, events: Sequence[AgentEvent]) -> None:
    """Refuse to end a run by events that do not."""
    if events[-1].type is not EventType.DONE:
        raise LocalProtocolError(
            f"can't close run {run_id!r}: expected DONE as the last event", law="L2"
        )


def refuse_stranger(run_id: str) -> NoReturn:
    """Say that somebody else runs it, or has ended it."""
    raise Fenced(f"can't go on with run {run_id!r}: another process runs it now, or has ended it")


def refuse_unknown(run_id: str) -> NoReturn:
    """Say that there is no such run."""
    raise LookupError(f"no run {run_id!r} is known")
