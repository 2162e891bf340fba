"""Docstrings: the three usual styles say the same of a function's parameters."""

from __future__ import annotations

import pytest

from flowtrio._agents._docstrings import parse_docstring

GOOGLE = """Move a thing.

It may take long.

Args:
  what: The thing,
    whatever it is.
  *far (int): How far: in metres.

Returns:
  nothing: at all.
"""
NUMPY = """Move a thing.

It may take long.

Parameters
----------
what : str
    The thing,
    whatever it is.
far
    How far: in metres.

Returns
-------
nothing : None
    At all.
"""
SPHINX = """Move a thing.

It may take long.

:param what: The thing,
    whatever it is.
:param int far: How far: in metres.
:returns: nothing
"""


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_all_styles_say_the_same(text: str) -> None:
    description, parameters = parse_docstring(text)

    assert description == "Move a thing.\n\nIt may take long."
    assert parameters == {
        "what": "The thing, whatever it is.",
        "far": "How far: in metres.",
    }


def test_a_line_that_is_no_parameter_goes_on_with_the_last() -> None:
    text = "Do.\n\nParameters\n----------\nwhat : str\n    One\n\n    two: three\n"

    assert parse_docstring(text) == ("Do.", {"what": "One two: three"})


def test_without_sections_all_is_the_description() -> None:
    assert parse_docstring("Do.") == ("Do.", {})
    assert parse_docstring("") == ("", {})


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("Do.\n\nArgs\n  x: one\n", {"x": "one"}),
        ("Do.\n\nArgs:\nx: one\ny: two\n", {"x": "one", "y": "two"}),
        ("Do.\n\nArgs:\n  *args: many\n  **kw: more\n", {"args": "many", "kw": "more"}),
        ("Do.\n\nArgs:\n  x: one\n\n:param y: two\n", {"x": "one", "y": "two"}),
        ("Do.\n\nArgs:\n  x: one\n\nKeyword Args:\n  y: two\n", {"x": "one", "y": "two"}),
        ("Do.\n\nOther Parameters\n----------------\nx : int\n    one\n", {"x": "one"}),
        ("Do.\n\nNote:\n  long note: with colon\n", {}),
    ],
)
def test_what_people_write_is_read_though_it_is_sloppy(
    text: str, parameters: dict[str, str]
) -> None:
    assert parse_docstring(text) == ("Do.", parameters)
