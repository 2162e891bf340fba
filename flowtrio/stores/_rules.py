"""What every store has to refuse, and what it tells of a log that ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import attrs

from flowtrio._core._events import AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import LocalProtocolError, ReplayGap
from flowtrio.abc import RunHeader


def check_append(header: RunHeader, last: int, after: int, events: Sequence[AgentEvent]) -> None:
    """Refuse events that do not go on behind the last one."""
    run_id = header.run_id
    if header.ended_at is not None:
        raise LocalProtocolError(f"can't append to run {run_id!r}: it ended at seq {last}")
    if after != last:
        raise LocalProtocolError(
            f"can't append to run {run_id!r} after seq {after}: its last is {last}", law="L1"
        )
    seqs = [event.seq for event in events]
    if not seqs or seqs != list(range(after + 1, after + 1 + len(seqs))):
        raise LocalProtocolError(
            f"can't append to run {run_id!r} after seq {after}: expected events numbered on from "
            f"it, got {_range(seqs)}",
            law="L1",
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
    """Refuse to read on from a place that is gone, or was never there.

    Args:
      run_id: The run.
      after: The last sequence number that the reader has seen.
      oldest: The oldest that is kept; one more than *last* where nothing is.
      last: The newest; -1 for an empty log.

    Raises:
      ReplayGap: reading cannot go on there.

    """
    if after < oldest - 1 or after > last:
        kept = f"seq {oldest} to {last} are kept" if oldest <= last else "nothing is kept"
        raise ReplayGap(
            f"can't read run {run_id!r} on after seq {after}: {kept}",
            run_id=run_id,
            after=after,
            oldest=oldest if oldest <= last else None,
        )


def refuse_unknown(run_id: str) -> NoReturn:
    """Say that there is no such run."""
    raise LookupError(f"no run {run_id!r} is known")
