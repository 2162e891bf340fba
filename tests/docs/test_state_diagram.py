"""The picture of the statuses shows the table, whole, and can be read."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"

Rectangle = tuple[float, float, float, float]
Segment = tuple[float, float, float, float]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_state_diagram", DOCS / "_state_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


diagram = _script()
TABLE = diagram.table_of_the_code()
RING = {"a": {"b"}, "b": {"a", "end"}, "end": set()}
"""Some other table of the same kind."""


def steps_in(picture: str) -> set[tuple[str, str]]:
    """Every transition that a picture shows."""
    steps = set()
    for edge in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        for before in edge.attrib["data-from"].split():
            steps.add((before, edge.attrib["data-to"]))
            if edge.attrib["data-both"] == "true":
                steps.add((edge.attrib["data-to"], before))
    return steps


def steps_of(table: dict[str, set[str]]) -> set[tuple[str, str]]:
    return {(before, after) for before, afters in table.items() for after in afters}


def find_collisions(picture: str) -> list[str]:
    """Which straight arrows run through a box, or a text through an arrow; as sentences."""
    tree = ElementTree.fromstring(picture)
    things = [*_boxes(tree), *_notes(tree)]
    return [
        f"{edge} runs through {thing}"
        for edge, segment in _segments(tree)
        for thing, rectangle in things
        if _meet(segment, rectangle)
    ]


def _boxes(tree: ElementTree.Element):
    for node in tree.iter(f"{SVG}rect"):
        if node.attrib["class"] in ("status", "terminal"):
            x, y, width, height = (float(node.attrib[k]) for k in ("x", "y", "width", "height"))
            # A pixel less on each side: arrows end at the border.
            yield f"the box at {x:g},{y:g}", (x + 1, y + 1, x + width - 1, y + height - 1)


def _notes(tree: ElementTree.Element):
    for node in tree.iter(f"{SVG}text"):
        if node.attrib.get("class") == "note":
            x, y, text = float(node.attrib["x"]), float(node.attrib["y"]), node.text or ""
            width = len(text) * 7
            left = x - width / 2 if node.attrib["text-anchor"] == "middle" else x
            yield f"the note {text!r}", (left, y - 11, left + width, y + 4)


def _segments(tree: ElementTree.Element):
    for edge in tree.iter(f"{SVG}g"):
        path = edge[0].attrib["d"]
        if "C" not in path:
            x1, y1, x2, *rest = (float(number) for number in re.findall(r"[\d.]+", path))
            name = f"{edge.attrib['data-from']} to {edge.attrib['data-to']}"
            yield name, (x1, y1, x2, rest[0] if rest else y1)


def _meet(segment: Segment, rectangle: Rectangle) -> bool:
    x1, y1, x2, y2 = segment
    left, top, right, bottom = rectangle
    points = ((x1 + (x2 - x1) * part / 200, y1 + (y2 - y1) * part / 200) for part in range(201))
    return any(left < x < right and top < y < bottom for x, y in points)


@pytest.mark.parametrize("table", [TABLE, RING], ids=["code", "other"])
def test_every_transition_of_the_table_is_drawn_and_no_other(table: dict[str, set[str]]) -> None:
    assert steps_in(diagram.draw(table)) == steps_of(table)


def test_a_picture_that_leaves_a_transition_out_is_noticed() -> None:
    table = TABLE | {"running": TABLE["running"] - {"running"}}

    assert steps_of(TABLE) - steps_in(diagram.draw(table)) == {("running", "running")}


def test_the_picture_in_the_documents_is_the_tables() -> None:
    assert (DOCS / "states.svg").read_text(encoding="utf-8") == diagram.draw(TABLE)


def test_writing_the_picture_leaves_one_alone_that_is_as_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "states.svg"
    diagram.write(path)
    first = path.read_text(encoding="utf-8")
    path.chmod(0o444)
    diagram.write(path)

    assert first == diagram.draw(TABLE)


def test_no_arrow_runs_through_a_box_or_a_note() -> None:
    assert find_collisions(diagram.draw(TABLE)) == []


def test_an_arrow_through_a_box_is_noticed() -> None:
    picture = diagram.draw(TABLE)
    across = (
        '<g class="edge" data-from="running" data-to="error" data-both="false">'
        '<path d="M0 0 L900 300"/></g></svg>'
    )

    assert find_collisions(picture.replace("</svg>", across)) != []
