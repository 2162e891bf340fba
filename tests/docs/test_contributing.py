"""What CONTRIBUTING says of where things live."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
MOST_FILES = 5
"""Of the package, for one thing that is added."""


def rows(text: str) -> dict[str, list[str]]:
    """What is added, and the files that are named for it."""
    section = text.partition("## Where things live")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    named = {what: re.findall(r"`([\w/]+\.\w+)`", where) for what, where in found}
    return {what: files for what, files in named.items() if files}


def find_faults(table: dict[str, list[str]]) -> list[str]:
    """What the table says that is not so, or is too much."""
    faults = []
    for what, files in table.items():
        own = [name for name in files if not name.startswith("tests/")]
        if len(own) > MOST_FILES:
            faults.append(f"{what}: {len(own)} files")
        faults += [
            f"{what}: no {name}"
            for name in files
            if not any((place / name).is_file() for place in (PROJECT, PROJECT / "flowtrio"))
            and not any((PROJECT / "flowtrio" / "page" / "static").glob(name))
        ]
    return faults


def test_each_thing_that_is_asked_for_has_few_files_and_they_are_there() -> None:
    table = rows(TEXT)

    assert len(table) == 11
    assert find_faults(table) == []


def test_a_planted_fault_is_found() -> None:
    many = [f"wire/_{letter}.py" for letter in "abcdef"]

    assert find_faults({"a": ["wire/_nothing.py"]}) == ["a: no wire/_nothing.py"]
    assert find_faults({"b": many})[0] == "b: 6 files"
