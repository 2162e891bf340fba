"""What has to know of an event type, and of its keys: each place is named here, and checked.

The table of fields in `flowtrio._core._events` says what there is. Whoever adds a type or a key
there is told by these tests where else it has to be known; a place that leaves a type out on
purpose says so in `PLACES`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from flowtrio._core._events import ADDED_KEYS, FIELDS, EventType
from flowtrio.testing._shapes import OLD_SHAPES

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = "flowtrio/page/static"


@attrs.frozen
class Place:
    """A part of a file that tells the types of events apart."""

    path: str
    part: str
    """The function or table in it; of a page's module, the text that its first line begins with."""
    leaves: frozenset[str] = attrs.field(
        default="", converter=lambda names: frozenset(names.split())
    )
    """The types that it treats alike, or not at all."""

    def __str__(self) -> str:
        return f"{self.path}: {self.part}"


PLACES: Final = [
    Place("flowtrio/_core/_law.py", "Law._RULES"),
    Place("flowtrio/_core/_snapshot.py", "Snapshot.add", "tool_call_args tool_progress custom"),
    Place("flowtrio/pictures/_lanes.py", "PIECES _Layouter._event", "custom"),
    Place("flowtrio/pictures/_text.py", "_tell", "message_part message_reset custom"),
    Place("flowtrio/protocols/_agui/_mapper.py", "AGUIMapper._tell"),
    Place("flowtrio/protocols/_ai_sdk/_mapper.py", "UIMessageMapper._tell"),
    Place(
        "flowtrio/cli/_screen.py",
        "RichScreen.show",
        "run_start message_part reasoning_chunk tool_call_args approval_required input_required "
        "input_resolved custom",
    ),
    Place(f"{PAGE}/conversation.js", "add({", "custom"),
    Place(f"{PAGE}/lanes.js", "add(event)", "run_start error custom"),
    Place(f"{PAGE}/log.js", "const said = {", "message_part message_reset user_message custom"),
]


def part_of(place: Place, source: str) -> str:
    """The source of a place's part alone."""
    if place.path.endswith(".js"):
        lines = source.splitlines()
        [first] = [i for i, line in enumerate(lines) if line.strip().startswith(place.part)]
        indent = re.match(" *", lines[first])
        assert indent is not None
        last = next(i for i in range(first, len(lines)) if lines[i].startswith(f"{indent[0]}}}"))
        return "\n".join(lines[first : last + 1])
    return "\n".join(
        ast.get_source_segment(source, _find(ast.parse(source), name.split("."))) or ""
        for name in place.part.split()
    )


def _find(tree: Any, names: list[str]) -> ast.AST:
    for name in names:
        [tree] = [node for node in tree.body if name in _names_of(node)]
    assert isinstance(tree, ast.AST)
    return tree


def _names_of(node: Any) -> Iterable[str]:
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [getattr(node, "name", ""), *(getattr(target, "id", "") for target in targets)]


def known_in(place: Place, text: str) -> set[str]:
    """The types that a place's text names."""
    if place.path.endswith(".js"):
        return {*re.findall(r'case "(\w+)":', text), *re.findall(r"^ +(\w+): ", text, re.M)}
    return {name.lower() for name in re.findall(r"\b(?:EventType|_T)\.([A-Z_]+)\b", text)}


def flaws_of(place: Place, text: str, types: Iterable[str]) -> list[str]:
    """What a place lacks, and what it has too much."""
    known, types = known_in(place, text), set(types)
    return [
        *(f"{place} does not know {type}" for type in sorted(types - known - place.leaves)),
        *(f"{place} leaves {type} out no more" for type in sorted(known & place.leaves)),
        *(f"{place} leaves {type} out: unknown" for type in sorted(place.leaves - types)),
        *(f"{place} knows {type}: unknown" for type in sorted(known - types)),
    ]


def text_of(place: Place) -> str:
    return part_of(place, (ROOT / place.path).read_text("utf-8"))


def test_each_type_has_its_fields() -> None:
    assert set(FIELDS) == set(EventType)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_place_knows_each_type_or_leaves_it_out_on_purpose(place: Place) -> None:
    assert flaws_of(place, text_of(place), map(str, EventType)) == []


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_new_type_and_a_forgotten_one_are_told_of_each_place(place: Place) -> None:
    text, types = text_of(place), set(map(str, EventType))
    assert flaws_of(place, text, types | {"planted"}) == [f"{place} does not know planted"]

    for type in known_in(place, text):
        without = re.sub(rf"\b({type}|{type.upper()})\b(?!\()", "-", text)
        assert flaws_of(place, without, types) == [f"{place} does not know {type}"]
    for type in place.leaves:
        assert flaws_of(place, text, types - {type}) == [f"{place} leaves {type} out: unknown"]


# Keys


def read_in(source: str) -> dict[str, set[str]]:
    """The keys of data that the cases of a ``match`` read, by type."""
    read: dict[str, set[str]] = {}
    for case in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.match_case)):
        types = [
            node.attr.lower()
            for node in ast.walk(case.pattern)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("EventType", "_T")
        ]
        body = ast.unparse(ast.Module(case.body, []))
        keys = re.findall(
            r"\bdata(?:\.get\(|\[)'(\w+)'|\b(?:_text\(data, |word\(|get\()'(\w+)'", body
        )
        for type in types:
            read.setdefault(type, set()).update(one or other for one, other in keys)
    return read


def read_by_page(source: str) -> dict[str, set[str]]:
    """The same of a module of the page: of its cases, or of the lines of a table."""
    read: dict[str, set[str]] = {}
    types: list[str] = []
    for line in source.splitlines():
        if case := re.match(r' +case "(\w+)":', line):
            types.append(case[1])
        elif row := re.match(r"    (\w+): .*\bdata\.", line):
            types = [row[1]]
        for type in types:
            read.setdefault(type, set()).update(re.findall(r"\bdata\.(\w+)", line))
        if re.match(r" +return\b|    \w+: ", line):
            types = []
    return {type: keys for type, keys in read.items() if keys}


def unknown_keys(path: str, read: Mapping[str, set[str]]) -> list[str]:
    return [
        f"{path} reads {type}.{key}: unknown"
        for type, keys in read.items()
        for key in sorted(keys - FIELDS[EventType(type)].keys())
    ]


@pytest.mark.parametrize("path", sorted({place.path for place in PLACES}))
def test_a_place_reads_no_key_that_its_type_does_not_have(path: str) -> None:
    source = (ROOT / path).read_text("utf-8")
    reader = read_by_page if path.endswith(".js") else read_in
    read = reader(source)

    assert unknown_keys(path, read) == []
    if path.endswith("_law.py"):
        return
    assert sum(map(len, read.values())) > 6
    spoilt = reader(re.sub(r"""(\bdata\.|["'])tool_name\b""", r"\1tool_nme", source))
    if spoilt != read:
        assert any("tool_nme: unknown" in flaw for flaw in unknown_keys(path, spoilt))


UNREAD: Final = frozenset(
    {
        *("message_complete.parent_call_id", "tool_call_start.parent_call_id"),
        *("approval_required.parent_call_id", "run_start.parent_run_id"),
        *("tool_call_start.provider_executed", "state_change.old_status"),
        *("error.retryable", "done.leftover"),
    }
)
"""What the page leaves to the log that it shows."""


def unread(sources: Iterable[str], fields: Mapping[Any, Iterable[str]]) -> set[str]:
    words = set(re.findall(r"\w+", "\n".join(sources)))
    return {f"{type}.{key}" for type, keys in fields.items() for key in keys if key not in words}


def test_the_page_names_each_key_or_leaves_it_on_purpose() -> None:
    sources = [path.read_text("utf-8") for path in sorted((ROOT / PAGE).glob("*.js"))]
    assert unread(sources, FIELDS) == UNREAD
    assert unread(sources, {"done": ["status", "planted"]}) == {"done.planted"}


@pytest.mark.parametrize("type", EventType)
def test_an_old_log_has_the_keys_that_its_schema_had(type: EventType) -> None:
    added = ADDED_KEYS.get(type, frozenset())
    assert added <= FIELDS[type].keys()
    assert list(OLD_SHAPES[type]) == [key for key in FIELDS[type] if key not in added]
