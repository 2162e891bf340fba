"""A log as a small timeline in text: a lane for all that is open, a line for each event.

::

    seq   time
      0  0.000  ┌      run 'buy 2'
      2  0.000  │┌     c1 check_stock starts {'item': 'lamp'}
      3  0.000  ││┌    c2 charge starts {'amount': 20}
      4  0.100  │└│    c1 check_stock ok 7
      5  0.300  │ └    c2 charge ok None
      7  0.300  └      done completed

The log may be broken in any way: what cannot be understood is shown as it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._events import AgentEvent, EventType

_T = EventType

_WIDTH: Final = 100
_RUN: Final = "the run"

_short: Final = reprlib.Repr()
_short.maxdict = 6
_short.maxlevel = 3
_short.maxstring = 40

_OPENING: Final = frozenset({_T.RUN_START, _T.AGENT_START, _T.INPUT_REQUIRED})
_CLOSING: Final = frozenset(
    {_T.DONE, _T.AGENT_END, _T.INPUT_RESOLVED, _T.MESSAGE_COMPLETE, _T.TOOL_CALL_END}
)
_OF_CALLS: Final = frozenset(
    {
        *(_T.TOOL_CALL_ARGS, _T.APPROVAL_REQUIRED, _T.TOOL_CALL_START),
        *(_T.TOOL_PROGRESS, _T.TOOL_CALL_END),
    }
)
_OF_MESSAGES: Final = frozenset(
    {
        *(_T.MESSAGE_CHUNK, _T.REASONING_CHUNK, _T.MESSAGE_PART),
        *(_T.MESSAGE_RESET, _T.MESSAGE_COMPLETE),
    }
)
_FRAGMENTS: Final[dict[str, str]] = {
    _T.MESSAGE_CHUNK: "chunk",
    _T.REASONING_CHUNK: "chunk",
    _T.TOOL_CALL_ARGS: "delta",
}


@attrs.define
class _Row:
    """One line: an event, or neighbouring fragments of the same thing."""

    index: int
    envelope: dict[str, Any]
    type: str
    key: str
    fragments: list[str]


def text_timeline(
    events: Iterable[AgentEvent | dict[str, Any]],
    *,
    only: range | None = None,
    marked: int | None = None,
) -> str:
    """Draw a log.

    Args:
      events: From the log's beginning, so that it is known what is open.
      only: Places of the events to show; all by default.
      marked: Place of an event to point at.

    """
    log = [_as_dict(event) for event in events]
    times = [time for e in log if (time := _seconds(e)) is not None]
    begun = times[0] if times else 0.0
    lanes: list[str | None] = []
    rows = []
    for row in _rows(log, marked):
        drawn = _draw_lanes(lanes, row)
        if only is None or row.index in only:
            rows.append((row, drawn))
    width = max((len(drawn) for _, drawn in rows), default=0)
    lines = [f"{'' if marked is None else '  '} seq   time"]
    for row, drawn in rows:
        mark = "" if marked is None else "> " if row.index == marked else "  "
        text = f"{mark}{_head(row.envelope, begun)}  {drawn:<{width}}  {_tell(row)}"
        lines.append(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…")
    return "\n".join(lines)


def _as_dict(event: object) -> dict[str, Any]:
    if isinstance(event, AgentEvent):
        return msgspec.structs.asdict(event)
    return event if isinstance(event, dict) else {}


def _rows(log: Sequence[dict[str, Any]], marked: int | None) -> Iterator[_Row]:
    last: _Row | None = None
    for index, envelope in enumerate(log):
        type = _word(envelope.get("type"))
        data = envelope.get("data")
        data = data if isinstance(data, dict) else {}
        row = _Row(index, envelope, type, _key(type, envelope, data), [])
        if (name := _FRAGMENTS.get(type)) is not None:
            row.fragments.append(_word(data.get(name)))
        is_more = last is not None and row.fragments and (last.type, last.key) == (type, row.key)
        if last is not None and is_more and marked not in (index, last.index):
            last.fragments += row.fragments
            continue
        if last is not None:
            yield last
        last = row
    if last is not None:
        yield last


def _key(type: str, envelope: dict[str, Any], data: dict[str, Any]) -> str:
    if type in _OF_CALLS:
        return _word(data.get("call_id"))
    if type in _OF_MESSAGES:
        return _word(data.get("message_id"))
    if type in (_T.INPUT_REQUIRED, _T.INPUT_RESOLVED):
        return _word(data.get("request_id"))
    agent = _word(envelope.get("agent"))
    return _RUN if agent == "root" else agent


def _draw_lanes(lanes: list[str | None], row: _Row) -> str:
    """The lanes at one line; changes them by what it opens and closes."""
    is_new = row.key not in lanes and (
        row.type in _OPENING or row.type in _OF_CALLS or row.type in _OF_MESSAGES
    )
    if is_new:
        if None in lanes:
            lanes[lanes.index(None)] = row.key
        else:
            lanes.append(row.key)
    is_last = row.type in _CLOSING
    here = "╶" if is_new and is_last else "┌" if is_new else "└" if is_last else "├"
    drawn = "".join(" " if k is None else here if k == row.key else "│" for k in lanes)
    if is_last and row.key in lanes:
        lanes[lanes.index(row.key)] = None
        while lanes and lanes[-1] is None:
            lanes.pop()
    return drawn


def _seconds(envelope: dict[str, Any]) -> float | None:
    time = envelope.get("timestamp")
    return time if isinstance(time, float) else None


def _word(value: object) -> str:
    """A value that should be text, at any length and depth."""
    return value if isinstance(value, str) else _short.repr(value)


def _head(envelope: dict[str, Any], begun: float) -> str:
    seq, time = envelope.get("seq"), _seconds(envelope)
    shown = f"{'?':>6}" if time is None else f"{time - begun:6.3f}"
    return f"{seq if isinstance(seq, int) else '?':>4} {shown}"


def _tell(row: _Row) -> str:
    """What one line says, in a few words."""
    data = row.envelope.get("data")
    if not isinstance(data, dict):
        return f"{row.type} {_short.repr(data)}"
    get = data.get

    def word(key: str) -> str:
        return _word(data.get(key))

    name = f"{row.key} {word('tool_name')}"
    value = _short.repr
    match row.type:
        case _T.MESSAGE_CHUNK | _T.REASONING_CHUNK | _T.TOOL_CALL_ARGS:
            what = {_T.MESSAGE_CHUNK: "says", _T.REASONING_CHUNK: "thinks"}.get(
                _T(row.type), "writes"
            )
            count = f" ({len(row.fragments)} pieces)" if len(row.fragments) > 1 else ""
            return f"{row.key} {what} {value(''.join(row.fragments))}{count}"
        case _T.MESSAGE_COMPLETE:
            return f"{row.key} complete: {word('finish_reason')}"
        case _T.TOOL_CALL_START:
            return f"{name} starts {value(get('arguments'))}"
        case _T.TOOL_CALL_END:
            came = get("result" if get("outcome") == "ok" else "error")
            return f"{name} {word('outcome')} {value(came)}"
        case _T.APPROVAL_REQUIRED:
            return f"{name} needs approval {value(get('arguments'))}"
        case _T.TOOL_PROGRESS:
            return f"{name} progress {value(get('progress'))}"
        case _T.RUN_START:
            return f"run {value(get('message'))}"
        case _T.USER_MESSAGE:
            return f"the user says {value(get('message'))}"
        case _T.STATE_CHANGE:
            reason = "" if get("reason") is None else f": {word('reason')}"
            return f"{word('new_status')}{reason}"
        case _T.AGENT_START:
            return f"agent {row.key} begins"
        case _T.AGENT_END:
            return f"agent {row.key} {word('outcome')}"
        case _T.ERROR:
            return f"error from {word('source')}: {word('code')}: {value(get('error'))}"
        case _T.DONE:
            return f"done {word('status')}"
        case _T.INPUT_REQUIRED:
            return f"{row.key} asks {value(get('prompt'))}"
        case _T.INPUT_RESOLVED:
            return f"{row.key} {word('outcome')} {value(get('text'))}"
        case _:
            return f"{row.type} {value(data)}"
