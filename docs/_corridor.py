"""Draw the corridor: the stages that data passes on its way through flowtrio.

``python docs/_corridor.py`` writes ``corridor.svg`` beside this file; building the documents does
the same. Each stage says which part of the package it is, and a test looks whether that exists.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import attrs

HERE = Path(__file__).parent
PICTURE = HERE / "corridor.svg"


@attrs.frozen
class Stage:
    """One part of the way, and what leaves it on its right."""

    name: str
    part: str
    """Folder of the package."""
    gives: str


BEGINNING = "bytes"
"""What comes in on the left, from the model."""

STAGES = (
    Stage("client", "clients", "bytes"),
    Stage("codec", "wire", "chunks"),
    Stage("gate", "_run", "events"),
    Stage("channel", "_run", "events"),
    Stage("view", "_core", "events"),
    Stage("transport", "serving", "frames"),
)

BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 104, 58, 66, 20
TOP = 44
BACK = 30
"""Between the boxes and each of the ways back."""

STYLE = """
  text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, monospace; fill: #1d2733; }
  .part, .note { font: italic 12px system-ui, 'DejaVu Sans', sans-serif; fill: #5a6775; }
  .page { fill: #ffffff; }
  .stage { fill: #f3f6fa; stroke: #34506e; stroke-width: 1.5; }
  .way { fill: none; stroke: #34506e; stroke-width: 1.5; }
  .back { fill: none; stroke: #8a5a16; stroke-width: 1.5; stroke-dasharray: 6 4; }
  .tip { fill: #34506e; } .backtip { fill: #8a5a16; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e9ef; } .part, .note { fill: #a3afbb; }
    .page { fill: #15191e; } .stage { fill: #232b34; stroke: #8fb2d9; }
    .way { stroke: #8fb2d9; } .tip { fill: #8fb2d9; }
    .back { stroke: #e0b04a; } .backtip { fill: #e0b04a; }
  }
"""


def draw() -> str:
    """The whole picture, as SVG."""
    width = 2 * MARGIN + len(STAGES) * BOX_WIDTH + (len(STAGES) + 1) * GAP
    height = TOP + BOX_HEIGHT + 2 * BACK + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-labelledby="title">',
            '<title id="title">The stages that data passes, from the model to the reader</title>',
            f"<style>{STYLE}</style>",
            f"<defs>{_tip('tip')}{_tip('backtip')}</defs>",
            f'<rect class="page" width="{width}" height="{height}" rx="8"/>',
            _text("model", MARGIN, TOP - 18, "note", "start"),
            _text("reader", width - MARGIN, TOP - 18, "note", "end"),
            _way(0, BEGINNING),
            *(part for place, stage in enumerate(STAGES) for part in _stage(place, stage)),
            _back(width, 1, "waiting: nobody has room, so the writer waits"),
            _back(width, 2, "cancellation: a scope closes"),
            "</svg>\n",
        ]
    )


def _tip(kind: str) -> str:
    return (
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="8" '
        f'markerHeight="8" orient="auto"><path class="{kind}" d="M0 0 L10 5 L0 10 z"/></marker>'
    )


def _left(place: int) -> int:
    """Where the box of a stage begins."""
    return MARGIN + GAP + place * (BOX_WIDTH + GAP)


def _stage(place: int, stage: Stage) -> list[str]:
    x = _left(place)
    middle = x + BOX_WIDTH / 2
    return [
        f'<rect class="stage" data-part="{escape(stage.part)}" x="{x}" y="{TOP}" '
        f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8"/>',
        _text(stage.name, middle, TOP + 26, ""),
        _text(f"{stage.part}/", middle, TOP + 45, "part"),
        _way(place + 1, stage.gives),
    ]


def _way(place: int, gives: str) -> str:
    """The arrow before a stage, with what travels along it."""
    end = _left(place)
    start = end - GAP
    y = TOP + BOX_HEIGHT / 2
    return f'<path class="way" d="M{start} {y:g} H{end}" marker-end="url(#tip)"/>' + _text(
        gives, (start + end) / 2 - 3, y - 8, "note"
    )


def _back(width: int, row: int, text: str) -> str:
    y = TOP + BOX_HEIGHT + row * BACK
    return (
        f'<path class="back" d="M{width - MARGIN} {y} H{MARGIN}" marker-end="url(#backtip)"/>'
        + _text(text, width / 2, y - 6, "note")
    )


def _text(text: str, x: float, y: float, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def write(path: Path = PICTURE) -> None:
    """Write the picture, unless it is there as it should be."""
    picture = draw()
    if not path.exists() or path.read_text(encoding="utf-8") != picture:
        path.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    write()
