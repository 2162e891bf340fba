"""Draw a run's statuses from the table that the code walks.

``python docs/_state_diagram.py`` writes ``states.svg`` beside this file; building the documents
does the same, so the picture cannot say anything else than `TRANSITIONS`.

The layout is small because the table has a shape. Every status from which a run can go on is put on
the row of its distance from the first one; these rows stand in a frame. What *each* of them may
turn into (a failure, a cancellation) is drawn once, as an arrow from the frame. What only one of
them may turn into stands beside that one. So no arrow crosses another, and no label an arrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from html import escape
from pathlib import Path

import attrs

from flowtrio._core._law import TRANSITIONS

HERE = Path(__file__).parent
PICTURE = HERE / "states.svg"

Table = Mapping[str, Set[str]]

BOX_WIDTH, BOX_HEIGHT = 214, 46
ROW_GAP, COLUMN_GAP = 62, 64
MARGIN, FRAME, LEGEND = 24, 52, 18
LOOP = 44
"""How far the arrow of a status that may follow itself bends away from its box."""

STYLE = """
  text { font: 15px ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; fill: #1d2733; }
  .note { font: italic 13px system-ui, 'DejaVu Sans', sans-serif; fill: #5a6775; }
  .page { fill: #ffffff; }
  .frame { fill: #f3f6fa; stroke: #9fb0c3; stroke-dasharray: 6 4; }
  .status { fill: #ffffff; stroke: #34506e; stroke-width: 1.5; }
  .terminal { fill: #e9eef4; stroke: #34506e; stroke-width: 3; }
  .edge path { fill: none; stroke: #34506e; stroke-width: 1.5; }
"""


@attrs.frozen
class Box:
    """A status and where its middle is."""

    name: str
    x: float
    y: float
    is_terminal: bool

    def border(self, towards_x: float, towards_y: float) -> tuple[float, float]:
        """Where a line from the middle to a point leaves the box."""
        dx, dy = towards_x - self.x, towards_y - self.y
        across = BOX_WIDTH / 2 / abs(dx) if dx else math.inf
        along = BOX_HEIGHT / 2 / abs(dy) if dy else math.inf
        part = min(across, along)
        return self.x + dx * part, self.y + dy * part


@attrs.frozen
class Layout:
    """Where everything is."""

    boxes: Mapping[str, Box]
    frame: tuple[float, float, float, float]
    """Left, top, right and bottom of the frame around what goes on."""
    common: tuple[str, ...]
    """What every status in the frame may turn into."""
    size: tuple[float, float]


def distances(table: Table) -> dict[str, int]:
    """How many steps each status is away from the first one of the table."""
    [first, *_] = table
    found, front = {first: 0}, [first]
    for before in front:
        for after in table:
            if after in table[before] and after not in found:
                found[after] = found[before] + 1
                front.append(after)
    return found


def lay_out(table: Table) -> Layout:
    """Give every status its place."""
    going_on = [name for name in table if table[name]]
    common = tuple(
        name for name in table if not table[name] and all(name in table[b] for b in going_on)
    )
    away = distances(table)
    rows = [[name for name in going_on if away[name] == row] for row in _rows(away, going_on)]
    width = max(len(row) for row in rows) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP
    left, top = MARGIN + FRAME, MARGIN + FRAME - LEGEND
    boxes = {
        box.name: box
        for number, row in enumerate(rows)
        for box in _row(row, left + width / 2, top + BOX_HEIGHT / 2 + number * _step())
    }
    right = left + width + FRAME
    bottom = top + (len(rows) - 1) * _step() + BOX_HEIGHT + FRAME
    column = right + 2 * COLUMN_GAP + BOX_WIDTH / 2
    for box in _terminals(table, boxes, common, column):
        boxes[box.name] = box
    size = (column + BOX_WIDTH / 2 + MARGIN, bottom + MARGIN)
    return Layout(boxes, (left - FRAME, MARGIN, right, bottom), common, size)


def _rows(away: Mapping[str, int], names: list[str]) -> range:
    return range(max(away[name] for name in names) + 1)


def _step() -> float:
    return BOX_HEIGHT + ROW_GAP


def _row(names: list[str], middle: float, y: float) -> Iterator[Box]:
    width = len(names) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP
    for place, name in enumerate(names):
        x = middle - width / 2 + BOX_WIDTH / 2 + place * (BOX_WIDTH + COLUMN_GAP)
        yield Box(name, x, y, is_terminal=False)


def _terminals(
    table: Table, boxes: Mapping[str, Box], common: tuple[str, ...], column: float
) -> Iterator[Box]:
    """Put what only one status may turn into beside it, and the others where there is room."""
    heights = sorted({box.y for box in boxes.values()})
    for name in (name for name in table if not table[name] and name not in common):
        [before] = [before for before in table if name in table[before]]
        heights.remove(boxes[before].y)
        yield Box(name, column, boxes[before].y, is_terminal=True)
    assert len(common) <= len(heights), "more ways to end than rows to put them in"
    for name, y in zip(common, reversed(heights), strict=False):
        yield Box(name, column, y, is_terminal=True)


def draw(table: Table) -> str:
    """The whole picture, as SVG."""
    layout = lay_out(table)
    width, height = layout.size
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" role="img" aria-labelledby="title">',
            '<title id="title">Which status of a run may follow which</title>',
            f"<style>{STYLE}</style>",
            _arrow_head(),
            f'<rect class="page" width="{width:g}" height="{height:g}" rx="8"/>',
            *_frame(layout),
            *_edges(table, layout),
            *(_status(box) for box in layout.boxes.values()),
            "</svg>\n",
        ]
    )


def _arrow_head() -> str:
    return (
        '<defs><marker id="head" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="9" '
        'markerHeight="9" orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" '
        'fill="#34506e"/></marker></defs>'
    )


def _frame(layout: Layout) -> Iterator[str]:
    left, top, right, bottom = layout.frame
    yield (
        f'<rect class="frame" x="{left:g}" y="{top:g}" width="{right - left:g}" '
        f'height="{bottom - top:g}" rx="14"/>'
    )
    yield _note("a loop: the same once more, with a new reason", left + 16, bottom - 14)


def _note(text: str, x: float, y: float, anchor: str = "start") -> str:
    return f'<text class="note" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _edges(table: Table, layout: Layout) -> Iterator[str]:
    boxes = layout.boxes
    for name in layout.common:
        box = boxes[name]
        start, end = layout.frame[2], box.x - BOX_WIDTH / 2
        froms = " ".join(before for before in table if name in table[before])
        yield _note("any of these", (start + end) / 2 - 4, box.y - 8, "middle")
        yield _edge(froms, name, f"M{start:g} {box.y:g} H{end:g}")
    drawn = set()
    for before, afters in table.items():
        for after in (name for name in table if name in afters and name not in layout.common):
            if before == after:
                yield _loop(boxes[before], layout)
            elif (after, before) not in drawn:
                drawn.add((before, after))
                yield _line(boxes[before], boxes[after], both=before in table[after])


def _line(start: Box, end: Box, *, both: bool) -> str:
    x1, y1 = start.border(end.x, end.y)
    x2, y2 = end.border(start.x, start.y)
    return _edge(start.name, end.name, f"M{x1:g} {y1:g} L{x2:g} {y2:g}", both=both)


def _loop(box: Box, layout: Layout) -> str:
    """The arrow of a status that may follow itself, on its outer side."""
    left, _, right, _ = layout.frame
    side = 1 if box.x > (left + right) / 2 else -1
    x, up, down = box.x + side * BOX_WIDTH / 2, box.y - 10, box.y + 10
    bend = x + side * LOOP
    path = f"M{x:g} {up:g} C{bend:g} {up - 12:g} {bend:g} {down + 12:g} {x:g} {down:g}"
    return _edge(box.name, box.name, path)


def _edge(before: str, after: str, path: str, *, both: bool = False) -> str:
    start = ' marker-start="url(#head)"' if both else ""
    return (
        f'<g class="edge" data-from="{escape(before)}" data-to="{escape(after)}" '
        f'data-both="{str(both).lower()}"><path d="{path}"{start} marker-end="url(#head)"/></g>'
    )


def _status(box: Box) -> str:
    kind = "terminal" if box.is_terminal else "status"
    return (
        f'<rect class="{kind}" x="{box.x - BOX_WIDTH / 2:g}" y="{box.y - BOX_HEIGHT / 2:g}" '
        f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8"/>'
        f'<text x="{box.x:g}" y="{box.y + 5:g}" text-anchor="middle">{escape(box.name)}</text>'
    )


def table_of_the_code() -> dict[str, frozenset[str]]:
    """`TRANSITIONS`, in plain words."""
    return {
        str(before): frozenset(str(after) for after in afters)
        for before, afters in TRANSITIONS.items()
    }


def write(path: Path = PICTURE) -> None:
    """Write the picture, unless it is there as it should be."""
    picture = draw(table_of_the_code())
    if not path.exists() or path.read_text(encoding="utf-8") != picture:
        path.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    write()
