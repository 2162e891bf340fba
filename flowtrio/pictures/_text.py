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

from flowtrio._core._events import AgentEvent, EventType

from ._lanes import lay_out
from ._layout import Moment

_T = EventType

_WIDTH: Final = 100

_short: Final = reprlib.Repr()
_short.maxdict = 6
_short.maxlevel = 3
_short.maxstring = 40

_FRAGMENTS: Final = {
    _T.MESSAGE_CHUNK: ("message_id", "says", "chunk"),
    _T.REASONING_CHUNK: ("message_id", "thinks", "chunk"),
    _T.TOOL_CALL_ARGS: ("call_id", "writes", "delta"),
}
"""What comes in numbers: what it is a piece of, the verb, and where the piece is."""


@attrs.define
class _Line:
    """An event, or neighbouring fragments of the same thing."""

    index: int
    moment: Moment
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
    rails: list[bool] = []
    rows = []
    for line in _lines(lay_out(events).moments, marked):
        drawn = _draw_rails(rails, line.moment)
        if only is None or line.index in only:
            rows.append((line, drawn))
    width = max((len(drawn) for _, drawn in rows), default=0)
    lines = [f"{'' if marked is None else '  '} seq   time"]
    for line, drawn in rows:
        mark = "" if marked is None else "> " if line.index == marked else "  "
        text = f"{mark}{_head(line.moment)}  {drawn:<{width}}  {_tell(line)}"
        lines.append(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…")
    return "\n".join(lines)


def _lines(moments: Sequence[Moment], marked: int | None) -> Iterator[_Line]:
    last: _Line | None = None
    for index, moment in enumerate(moments):
        line = _Line(index, moment, [])
        if moment.type is not None and moment.type in _FRAGMENTS:
            line.fragments.append(_word(moment.data.get(_FRAGMENTS[moment.type][2])))
        if last is not None:
            before = last.moment
            is_more = line.fragments and (before.type, before.rail) == (moment.type, moment.rail)
            if is_more and marked not in (index, last.index):
                last.fragments += line.fragments
                continue
            yield last
        last = line
    if last is not None:
        yield last


def _draw_rails(rails: list[bool], moment: Moment) -> str:
    """What is open at one line; changes it by what the event opens and closes."""
    here = (
        "╶"
        if moment.opens and moment.closes
        else "┌"
        if moment.opens
        else "└"
        if moment.closes
        else "├"
    )
    if moment.opens and moment.rail is not None:
        rails += [False] * (moment.rail + 1 - len(rails))
        rails[moment.rail] = True
    drawn = [
        here if rail == moment.rail else "│" if taken else " " for rail, taken in enumerate(rails)
    ]
    if moment.closes and moment.rail is not None:
        rails[moment.rail] = False
        while rails and not rails[-1]:
            rails.pop()
    return "".join(drawn)


def _word(value: object) -> str:
    """A value that should be text, at any length and depth."""
    return value if isinstance(value, str) else _short.repr(value)


def _head(moment: Moment) -> str:
    seq = moment.envelope.get("seq")
    shown = f"{'?':>6}" if moment.time is None else f"{moment.time:6.3f}"
    return f"{seq if isinstance(seq, int) else '?':>4} {shown}"


def _tell(line: _Line) -> str:
    """What one line says, in a few words."""
    data, type = line.moment.envelope.get("data"), line.moment.type
    if type is None or not isinstance(data, dict):
        return f"{_word(line.moment.envelope.get('type'))} {_short.repr(data)}"
    get = data.get

    def word(key: str) -> str:
        return _word(data.get(key))

    name = f"{word('call_id')} {word('tool_name')}"
    value = _short.repr
    match type:
        case _T.MESSAGE_CHUNK | _T.REASONING_CHUNK | _T.TOOL_CALL_ARGS:
            key, verb, _ = _FRAGMENTS[type]
            count = f" ({len(line.fragments)} pieces)" if len(line.fragments) > 1 else ""
            return f"{word(key)} {verb} {value(''.join(line.fragments))}{count}"
        case _T.MESSAGE_COMPLETE:
            return f"{word('message_id')} complete: {word('finish_reason')}"
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
            return f"agent {line.moment.agent} begins"
        case _T.AGENT_END:
            return f"agent {line.moment.agent} {word('outcome')}"
        case _T.ERROR:
            return f"error from {word('source')}: {word('code')}: {value(get('error'))}"
        case _T.DONE:
            return f"done {word('status')}"
        case _T.INPUT_REQUIRED:
            return f"{word('request_id')} asks {value(get('prompt'))}"
        case _T.INPUT_RESOLVED:
            return f"{word('request_id')} {word('outcome')} {value(get('text'))}"
        case _:
            return f"{type} {value(data)}"
