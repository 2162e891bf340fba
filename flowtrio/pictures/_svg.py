"""A run's log as a picture in SVG, as ``flowtrio timeline FILE`` draws it.

It is complete in itself: it brings its colours for light and for dark pages, asks for no font and
runs no script. Everything in it that comes from the log is text, cut to length and escaped.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from html import escape
from itertools import accumulate
from math import fsum
from typing import Any, Final

import attrs

from flowtrio._core._events import AgentEvent

from ._lanes import lay_out
from ._layout import Bar, Lane, Layout, Mark

LARGEST: Final = 900_000
"""Bytes up to which everything is told; a larger picture leaves out what matters least."""

ROW, GAP, TOP, MARGIN, LEGEND = 20, 8, 64, 16, 44
CHARACTER: Final = 7.3
"""Width of a character of the font, about."""
INDENT: Final = 14
NARROWEST, WIDEST, WIDTH, LONGEST = 5.0, 58.0, 1100.0, 16_000.0
"""Of one event, and of all of them in a picture of usual and of greatest length."""

_COLOURS: Final = {
    # name: fill and border on light pages, then on dark ones
    "text": ("#cfe0f5", "#3b6ea8", "#22405f", "#79aee6"),
    "running": ("#d6ecd8", "#3d8547", "#22472a", "#77c283"),
    "written": ("#eceff3", "#8a96a3", "#2b333c", "#8a96a3"),
    "asked": ("#fbeac6", "#ad7a11", "#54400f", "#e0b04a"),
    "agent": ("#e6dcf4", "#7650ad", "#3a2b57", "#b394e6"),
    "error": ("#f8d4d1", "#b93a32", "#5c211d", "#f08a82"),
    "cancelled": ("#e3e3e3", "#6b6b6b", "#3a3a3a", "#a8a8a8"),
}
_ALIKE: Final = {
    "ok": "running",
    "completed": "running",
    "timeout": "error",
    "denied": "asked",
    "initializing": "written",
    "waiting_for_input": "asked",
    "waiting_for_approval": "asked",
}
_LEGEND: Final = {
    "text": "message",
    "written": "arguments written",
    "asked": "waits for a person",
    "running": "runs, ended well",
    "agent": "nested agent",
    "error": "failed",
    "cancelled": "cancelled",
}


def _style() -> str:
    light = [f".{n}{{fill:{f};stroke:{b}}}" for n, (f, b, _, _) in _COLOURS.items()]
    dark = [f".{n}{{fill:{f};stroke:{b}}}" for n, (_, _, f, b) in _COLOURS.items()]
    return "\n".join(
        [
            "text{font:12px ui-monospace,'DejaVu Sans Mono',Menlo,monospace;fill:#1d2733}",
            "rect{stroke-width:1.2;rx:3px}.page{fill:#ffffff;stroke:none}",
            ".faint{fill:#5a6775}.lane,.time{stroke:#e3e8ee;fill:none}",
            ".pieces{fill:none;stroke:#1d2733;stroke-opacity:.5;stroke-width:3}",
            ".open{stroke-dasharray:4 3}",
            *light,
            "@media (prefers-color-scheme:dark){",
            "text{fill:#e4e9ef}.page{fill:#15191e}.faint{fill:#97a3b0}",
            ".lane,.time{stroke:#2b323a}.pieces{stroke:#e4e9ef}",
            *dark,
            "}",
            ".end{fill:none;stroke-width:2.5}",
        ]
    )


@attrs.frozen
class _Detail:
    """How much is told of each thing."""

    has_titles: bool
    """Whether each bar tells of itself when it is pointed at."""
    letters: int
    """Up to which a name is told."""


_DETAILS: Final = (_Detail(True, 40), _Detail(False, 24), _Detail(False, 8))


def draw_timeline(events: Iterable[AgentEvent | dict[str, Any]]) -> str:
    """Draw a run's log as SVG.

    Args:
      events: A run's events, each an `AgentEvent` or a dict as it stands on the wire. They need not
        obey the laws.

    Returns:
      The picture. One of 10,000 events has less than 1 MB, whatever they are.

    """
    layout = lay_out(events)
    picture = ""
    for detail in _DETAILS:
        picture = _Picture(layout, detail).draw()
        if len(picture.encode()) <= LARGEST:
            break
    return picture


class _Picture:
    """One log at one level of detail."""

    def __init__(self, layout: Layout, detail: _Detail) -> None:
        self.layout = layout
        self.detail = detail
        names = [
            len(self._cut(lane.name)) * CHARACTER + lane.depth * INDENT for lane in layout.lanes
        ]
        self.left = MARGIN + max([50.0, *names]) + 14
        weights = [column.weight for column in layout.columns]
        self.unit = _unit(fsum(weights))
        self.xs = [self.left + x * self.unit for x in accumulate(weights, initial=0)]
        heights = [max(1, len(lane.rows)) * ROW + GAP for lane in layout.lanes]
        self.ys = list(accumulate(heights, initial=TOP))
        self.right = self.xs[-1] + MARGIN
        self.bottom = self.ys[-1] + 4
        self.strokes: dict[str, list[str]] = defaultdict(list)
        """Paths by class: what is alike is one element."""

    def draw(self) -> str:
        width, height = max(self.right, 860), self.bottom + LEGEND
        grid = [*self._axis(), *self._take_strokes()]
        body = [
            line
            for lane, y in zip(self.layout.lanes, self.ys, strict=False)
            for line in self._lane(lane, y)
        ]
        title = f"Timeline of run {self._cut(self.layout.run_id)}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
                f'width="{width:.0f}" height="{height:.0f}" role="img">',
                f"<title>{_safe(title)}</title>",
                f"<style>{_style()}</style>",
                f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
                self._text(self._heading(), MARGIN, 22),
                *grid,
                *body,
                *self._take_strokes(),
                *self._legend(),
                "</svg>\n",
            ]
        )

    def _take_strokes(self) -> list[str]:
        paths = [f'<path class="{kind}" d="{"".join(d)}"/>' for kind, d in self.strokes.items()]
        self.strokes.clear()
        return paths

    def _heading(self) -> str:
        columns = self.layout.columns
        count = sum(column.count for column in columns)
        last = columns[-1].time if columns else None
        took = f", {last:.2f} s" if last is not None else ""
        said = f"“{self._cut(self.layout.message)}”  " if self.layout.message else ""
        return f"{said}{count} events{took}, {self._cut(self.layout.status) or 'not ended'}"

    # The axis: places and times

    def _axis(self) -> Iterator[str]:
        yield self._text("seq", MARGIN, TOP - 22, "faint")
        yield self._text("time", MARGIN, TOP - 8, "faint")
        free = self.left
        for column, x in zip(self.layout.columns, self.xs, strict=False):
            if x < free:
                continue
            seq = column.first if column.seq is None else column.seq
            time = "" if column.time is None else f"{column.time:+.2f} s"
            yield self._text(str(seq), x, TOP - 22, "faint")
            yield self._text(time, x, TOP - 8, "faint")
            self.strokes["time"].append(f"M{x:.1f} {TOP - 4}V{self.bottom:.0f}")
            free = x + max(9, len(str(seq)) + 2) * CHARACTER
        for y in self.ys:
            self.strokes["lane"].append(f"M{MARGIN} {y - GAP / 2:.0f}H{self.right:.1f}")

    # Lanes

    def _lane(self, lane: Lane, y: float) -> Iterator[str]:
        kind = "" if lane.kind in ("tool", "model", "question") else "name"
        x = MARGIN + lane.depth * INDENT
        yield self._text(self._cut(lane.name), x, y + 14, kind)
        for bar in lane.bars:
            yield from self._bar(bar, y + bar.row * ROW)
        for (row, column, kind), _ in lane.streaks.items():
            # In the lower half of its bar, so that the bar's text stays readable.
            middle = y + row * ROW + (13 if kind != "reasoning" else 4.5)
            start, end = self.xs[column] + 1, self.xs[column + 1] - 1
            self.strokes[f"pieces {kind}"].append(f"M{start:.1f} {middle:.1f}H{end:.1f}")
        for mark in lane.marks:
            yield from self._mark(mark, y + mark.row * ROW)

    def _bar(self, bar: Bar, y: float) -> Iterator[str]:
        x, end = self.xs[bar.start], self.xs[bar.end + 1]
        width = max(0.5, end - x - 1)
        tone = _tone(bar.tone)
        opened = " open" if bar.is_open else ""
        place = f'x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="{ROW - 4}"'
        if self.detail.has_titles:
            title = f"<title>{_safe(bar.title, 80)}</title>"
            yield f'<rect class="{tone}{opened}" {place}>{title}</rect>'
        else:
            self.strokes[f"{tone}{opened}"].append(
                f"M{x:.1f} {y:.0f}h{width:.1f}v{ROW - 4}h-{width:.1f}z"
            )
        letters = int((width - 6) / CHARACTER)
        if bar.text and letters >= min(2, len(bar.text)):
            yield self._text(_cut(bar.text, letters), x + 4, y + 11)

    def _mark(self, mark: Mark, y: float) -> Iterator[str]:
        x = max(self.xs[mark.column] + 6, self.xs[mark.column + 1] - 9)
        kind, _, status = mark.kind.partition(" ")
        if kind == "done":
            # The terminal closes every lane.
            end = self.xs[mark.column + 1]
            self.strokes[f"{_tone(status)} end"].append(f"M{end:.1f} {TOP - 4}V{self.bottom:.0f}")
        tone = {"done": _tone(status), "failed": "error", "reset": "asked"}.get(kind, "written")
        title = f"<title>{_safe(mark.title, 80)}</title>" if self.detail.has_titles else ""
        yield f'<circle class="{tone}" cx="{x:.1f}" cy="{y + 8:.0f}" r="5">{title}</circle>'

    # The rest

    def _legend(self) -> Iterator[str]:
        y, x = self.bottom + 14, float(MARGIN)
        for tone, words in _LEGEND.items():
            yield f'<rect class="{tone}" x="{x:.0f}" y="{y:.0f}" width="12" height="12"/>'
            yield self._text(words, x + 17, y + 10, "faint")
            x += 17 + (len(words) + 2) * CHARACTER

    def _text(self, text: str, x: float, y: float, kind: str = "") -> str:
        named = f' class="{kind}"' if kind else ""
        return f'<text{named} x="{x:.1f}" y="{y:.0f}">{_safe(text, 120)}</text>'

    def _cut(self, text: str) -> str:
        return _cut(text, self.detail.letters)


def _unit(weight: float) -> float:
    """Width of one event, so that short logs are wide enough and long ones not too wide."""
    if not weight:
        return WIDEST
    return min(WIDEST, max(NARROWEST, WIDTH / weight), LONGEST / weight)


def _tone(name: str) -> str:
    name = _ALIKE.get(name, name)
    return name if name in _COLOURS else "written"


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: max(0, letters - 1)]}…"


def _safe(text: str, letters: int = 120) -> str:
    """Text for XML: cut, without the characters that XML or a terminal gives a meaning."""
    return escape("".join(c if _is_plain(c) else "�" for c in _cut(text, letters)))


def _is_plain(character: str) -> bool:
    # Controls, surrogates and what has no meaning yet; also marks that turn the direction of text.
    return unicodedata.category(character) not in ("Cc", "Cs", "Cn", "Cf", "Co")
