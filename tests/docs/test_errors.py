"""The guide to errors has every code of the source, and no other.

A code is found where the source gives one: as ``code=``, as its default, in a table of codes, or as
an argument of the few functions that take it by place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowtrio

PACKAGE = Path(flowtrio.__file__).parent
GUIDE = (PACKAGE.parent / "docs" / "guides" / "errors.md").read_text("utf-8")

BY_PLACE = {
    "fail_run": 1,
    "_fail": 0,
    "end_with_error": 0,
    "BadFrame": 0,
    "_reject": 1,
    "_Refused": 0,
    "refuse": 1,
}
"""Functions that take a code, and as which argument."""

SOURCES = ("model", "tool", "agent", "store", "internal")
"""What ``f"{source}_failed"`` may stand for; deadlines and limits have codes of their own."""

CODE = re.compile(r"[a-z]+(_[a-z]+)*")


def codes_in(source: str) -> set[str]:
    """The codes that a module gives."""
    tree = ast.parse(source)
    found: set[str] = set()
    for scope in ast.walk(tree):
        if isinstance(scope, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(scope):
                for value in _given(node):
                    found.update(_texts(value, scope))
    return {code for code in found if CODE.fullmatch(code)}


def _given(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions whose value is a code."""
    match node:
        case ast.Call(func=func, args=args, keywords=keywords):
            name = getattr(func, "attr", getattr(func, "id", ""))
            if name not in ("CloseConnection", "encode_response"):
                yield from (word.value for word in keywords if word.arg == "code")
            place = BY_PLACE.get(name)
            if place is not None and len(args) > place:
                yield args[place]
        case ast.arguments(kwonlyargs=names, kw_defaults=defaults):
            for argument, default in zip(names, defaults, strict=True):
                if argument.arg == "code" and default is not None:
                    yield default
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(values=values)):
            if name.endswith("_CODES"):
                yield from values


def _texts(value: ast.expr, scope: ast.AST) -> Iterator[str]:
    """What an expression may be; a name may be all that it is assigned in its function."""
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body, scope)
            yield from _texts(orelse, scope)
        case ast.BoolOp(values=values):
            for part in values:
                yield from _texts(part, scope)
        case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value="_failed")]):
            yield from (f"{source}_failed" for source in SOURCES)
        case ast.Name(id=name):
            for node in ast.walk(scope):
                match node:
                    case ast.Assign(targets=[ast.Name(id=assigned)], value=given) if (
                        assigned == name and not isinstance(given, ast.Name)
                    ):
                        yield from _texts(given, scope)


def codes_of_the_source() -> set[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {code for path in paths for code in codes_in(path.read_text("utf-8"))}


def codes_of_the_guide(text: str) -> set[str]:
    cells = re.findall(r"^\| (`[a-z_`, ]+`) \|", text, re.MULTILINE)
    return {code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)}


def test_the_guide_has_every_code_of_the_source() -> None:
    assert codes_of_the_source() - codes_of_the_guide(GUIDE) == set()


def test_the_guide_has_no_code_that_the_source_does_not_know() -> None:
    assert codes_of_the_guide(GUIDE) - codes_of_the_source() == set()


@pytest.mark.parametrize(
    "source",
    [
        "raise ProviderError('no', code='new_code')",
        "raise RemoteProtocolError('no', code='a' if b else 'new_code')",
        "def f(self, *, code: str = 'new_code') -> None: ...",
        "MORE_CODES = {418: 'new_code'}",
        "def f(status):\n    kind = MORE.get(status) or 'new_code'\n    raise E(code=kind)",
        "run.end_with_error('new_code', 'internal', 'no')",
        "await self._reject(ref, 'new_code', 'no')",
        "raise BadFrame('new_code', 'no')",
    ],
)
def test_a_code_is_found_wherever_it_is_given(source: str) -> None:
    assert "new_code" in codes_in(source)


def test_what_only_looks_like_a_code_is_none() -> None:
    assert codes_in("CloseConnection(code=1009, reason='too_many')\nf('a_word', kind='x')") == set()


def test_a_row_that_is_missing_is_noticed() -> None:
    shorter = GUIDE.replace("| `stream_cut` |", "| `cut` |")

    assert codes_of_the_source() - codes_of_the_guide(shorter) == {"stream_cut"}
