"""The reference names every public name once, and says of events what the code says."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import flowtrio
import flowtrio.abc
import flowtrio.auth
import flowtrio.mcp
import flowtrio.otel
import flowtrio.protocols
import flowtrio.testing
from flowtrio._core._events import ADDED_KEYS, DATA_KEYS
from flowtrio._core._modes import VISIBLE

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
DIRECTIVE = re.compile(
    r"^\.\. (?:auto(?:class|data|exception|function)|py:data):: ([\w.]+)", re.MULTILINE
)
ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \|", re.MULTILINE)

EVENTS = (REFERENCE / "events.md").read_text("utf-8")
PAGES = {path.name: path.read_text("utf-8") for path in sorted(REFERENCE.glob("*.md"))}


def documented(pages: Iterable[str]) -> list[str]:
    """Every name that some page documents, in order."""
    return [name for text in pages for name in DIRECTIVE.findall(text)]


def public() -> list[str]:
    """Every name that a door shows, with its door."""
    names = [f"flowtrio.{name}" for name in _shown(flowtrio)]
    names += [f"flowtrio.testing.{name}" for name in _shown(flowtrio.testing)]
    names += [f"flowtrio.mcp.{name}" for name in _shown(flowtrio.mcp)]
    names += [f"flowtrio.protocols.{name}" for name in _shown(flowtrio.protocols)]
    names += [f"flowtrio.otel.{name}" for name in _shown(flowtrio.otel)]
    names += [f"flowtrio.auth.{name}" for name in _shown(flowtrio.auth)]
    own = {
        name: value
        for name, value in vars(flowtrio.abc).items()
        if getattr(value, "__module__", None) == "flowtrio.abc" or name in ("Message", "ToolSpec")
    }
    return names + [f"flowtrio.abc.{name}" for name in own if not name.startswith("_")]


def _shown(module: Any) -> list[str]:
    shown = [name for name in dir(module) if not name.startswith("_") and name != "annotations"]
    return [name for name in shown if not inspect.ismodule(getattr(module, name))]


def find_gaps(names: Iterable[str], entries: Iterable[str]) -> list[str]:
    """Which public names are not documented exactly once; as sentences."""
    counts = Counter(entries)
    return [f"{name}: {counts[name]} entries" for name in names if counts[name] != 1]


def rows_of(text: str) -> dict[str, list[str]]:
    """The keys of each type of event, as the tables have them: code that stands before a comma or
    the cell's end, whatever is said about it."""
    return {
        type: [re.findall(r"`(\w+)`", part)[0] for part in re.split(r", (?=`)", keys)]
        for type, keys in ROW.findall(text)
        if type in flowtrio.EventType.__members__
    }


def test_every_public_name_is_documented_once() -> None:
    assert find_gaps(public(), documented(PAGES.values())) == []


@pytest.mark.parametrize("entry", documented(PAGES.values()))
def test_what_is_documented_exists(entry: str) -> None:
    module, _, name = entry.rpartition(".")

    assert hasattr(importlib.import_module(module), name)


def test_a_name_that_is_missing_or_stands_twice_is_noticed() -> None:
    page = "```{eval-rst}\n.. autoclass:: flowtrio.Agent()\n\n.. autodata:: flowtrio.Agent\n```\n"
    gaps = find_gaps(["flowtrio.Agent", "flowtrio.tool"], documented([page]))

    assert gaps == ["flowtrio.Agent: 2 entries", "flowtrio.tool: 0 entries"]


def test_the_tables_have_each_type_of_event_with_its_keys() -> None:
    assert rows_of(EVENTS) == {type.name: list(keys) for type, keys in DATA_KEYS.items()}


def test_the_page_tells_which_keys_an_old_log_lacks() -> None:
    listed = {
        type: set(re.findall(r"`(\w+)`", keys))
        for type, keys in re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", EVENTS, re.MULTILINE)
    }

    assert listed == {str(type): set(keys) for type, keys in ADDED_KEYS.items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [("`prompt`, ", "`question`, "), ("`retryable`, ", ""), ("| `CUSTOM` |", "| `OWN` |")],
)
def test_a_table_that_says_something_else_is_noticed(old: str, new: str) -> None:
    rows = rows_of(EVENTS.replace(old, new, 1))

    assert rows != {type.name: list(keys) for type, keys in DATA_KEYS.items()}


def test_the_modes_show_what_the_page_says() -> None:
    modes = dict(ROW.findall(EVENTS))
    listed = {mode: set(re.findall(r"`([A-Z_]+)`", modes[mode])) for mode in ("MESSAGES", "VALUES")}
    hidden = re.search(r"\| `UPDATES`, .*? \| all but (.*) \|", EVENTS)
    assert hidden is not None
    updates = set(flowtrio.EventType.__members__) - set(re.findall(r"`([A-Z_]+)`", hidden[1]))
    shown = {mode.name: {type.name for type in types} for mode, types in VISIBLE.items()}

    assert shown == {
        "EVENTS": set(flowtrio.EventType.__members__),
        "UPDATES": updates,
        "MESSAGES": listed["MESSAGES"],
        "VALUES": updates - listed["VALUES"],
    }
