"""``flowtrio check FILE``: whether a log obeys the laws."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flowtrio.testing._checks import LawBroken, check_events
from flowtrio.wire._json import decode_json

from ._screen import printable

LAWFUL, BROKEN, NO_LOG = 0, 1, 2
"""Exit statuses."""


def check_file(name: str) -> int:
    """Check a file of JSON lines, ``-`` for standard input; tell the outcome, give the status."""
    try:
        runs = read_log(name)
    except (OSError, ValueError) as exc:
        print(f"{name}: no log of events: {exc}", file=sys.stderr)
        return NO_LOG
    return max([_check_run(run_id, events) for run_id, events in runs.items()])


def _check_run(run_id: str, events: list[dict[str, Any]]) -> int:
    try:
        check_events(events)
    except LawBroken as exc:
        # A log may come from anywhere, and its names are told in what is wrong with it.
        print(printable(f"run {run_id}: {len(events)} events, not lawful\n{exc}"))
        return BROKEN
    print(printable(f"run {run_id}: {len(events)} events, lawful"))
    return LAWFUL


def read_log(name: str) -> dict[str, list[dict[str, Any]]]:
    """Read a file, ``-`` for standard input; see `read_runs`."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return read_runs(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


def read_runs(text: str) -> dict[str, list[dict[str, Any]]]:
    """Read JSON lines as they come from ``--events`` or a server; give each run's events in order.

    Lines may hold one event, or an array of several as in the batch subprotocol. A server's replies
    are no events and are left out, and so is what ``linked=1`` adds to an event: it tells of what
    one reader was sent, not of the run.

    Raises:
      ValueError: a line is something else, or there is no event at all.

    """
    runs: dict[str, list[dict[str, Any]]] = {}
    # Not splitlines: it also splits at U+2028, which stands unescaped in JSON texts.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        for frame in _frames(line, number):
            if frame.get("type") in ("accepted", "rejected") and "seq" not in frame:
                continue
            if not isinstance(frame.get("type"), str) or "data" not in frame:
                raise ValueError(f"line {number} is no event: expected type, data, seq, …")
            frame.pop("after", None)
            runs.setdefault(str(frame.get("run_id")), []).append(frame)
    if not runs:
        raise ValueError("it has no events")
    return runs


def _frames(line: str, number: int) -> list[dict[str, Any]]:
    try:
        value = decode_json(line)
    except ValueError:
        raise ValueError(f"line {number} is not JSON") from None
    frames = value if isinstance(value, list) else [value]
    if not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"line {number} is no event: expected a JSON object")
    return frames
