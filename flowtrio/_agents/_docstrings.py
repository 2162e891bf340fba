"""What a docstring says of a function and of its parameters: Google, NumPy and Sphinx style.

The library for it, docstring-parser, leaves a section in the description whose heading has no
colon or whose entries are not indented, takes one style alone of a docstring with two, and keeps
the stars of a name: half of what people write would reach the model wrong, for a dependency more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SECTION = re.compile(
    r"((?:Keyword )?Arg(?:ument)?s|(?:Other )?Parameters|Params|Returns?|Raises|Yields?|Examples?|"
    r"Notes?|See Also|Attributes|Warnings?|References|Todo):?\s*$"
)
_NUMPY = ("Parameters", "Other Parameters")
_PARAMETERS = (*_NUMPY, "Params", "Args", "Arguments", "Keyword Args", "Keyword Arguments")
_SPHINX = re.compile(r":(?:param|parameter|arg|argument)\s+(?:[^:]*\s)?\*{0,2}(\w+):\s*(.*)")
_FIELD = re.compile(r":\w+[^:]*:")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Give the leading text, and the parameters' descriptions by name.

    Args:
      text: A docstring as `inspect.getdoc` gives it.

    """
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if _ends_description(line)), len(lines))
    description = "\n".join(lines[:end]).strip()
    return description, {
        name: " ".join(" ".join(words).split()) for name, words in _entries(lines[end:]) if words
    }


def _ends_description(line: str) -> bool:
    return bool(_SECTION.fullmatch(line)) or bool(_FIELD.match(line))


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each parameter with the pieces of its description."""
    section, name, depth = "", "", 0
    words: list[str] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        sphinx = _SPHINX.match(stripped)
        heading = _SECTION.fullmatch(line) if indent == 0 else None
        entry = _entry(section, stripped)
        if sphinx or heading or (indent == 0 and _FIELD.match(stripped)):
            yield name, words
            name, words = (sphinx[1], [sphinx[2]]) if sphinx else ("", [])
            section = heading[1] if heading else section
            depth = 0 if sphinx else -1
        elif section in _PARAMETERS and entry and (depth < 0 or indent <= depth):
            yield name, words
            name, words, depth = entry[0], [entry[1]], indent
        elif name and stripped and not set(stripped) <= {"-"}:
            words.append(stripped)
    yield name, words


def _entry(section: str, line: str) -> tuple[str, str] | None:
    """``name (type): text`` as Google writes it, or ``name : type`` as NumPy does."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        name = line if line.isidentifier() and section in _NUMPY else ""
        return (name, "") if name else None
    is_numpy = section in _NUMPY and " : " in line
    return match[1], "" if is_numpy else match[2]
