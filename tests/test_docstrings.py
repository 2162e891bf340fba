"""Every public class, function, method, field and value says what it is.

Read from the source with ``ast``: what stands under a field is no attribute of anything at run
time, and what a class has from a private base belongs to it too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

import flowtrio

PACKAGE = Path(flowtrio.__file__).parent

DOORS = {
    "flowtrio": "__init__.py",
    "flowtrio.abc": "abc/__init__.py",
    "flowtrio.testing": "testing/__init__.py",
    "flowtrio.stores.memory": "stores/memory.py",
    "flowtrio.stores.sqlite": "stores/sqlite.py",
}
"""The modules that people import from."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen
class Public:
    """A public name and where it is defined."""

    name: str
    tree: ast.Module


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def public(door: str) -> Iterator[Public]:
    """What a module defines itself, and what it hands on as ``from x import Y as Y``."""
    tree = _parse(PACKAGE / DOORS[door])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.asname == alias.name:
                    home = PACKAGE.parent / f"{(node.module or '').replace('.', '/')}.py"
                    yield Public(alias.name, _parse(home))
    for name in _defined(tree):
        yield Public(name, tree)


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                pass
            case ast.AsyncFunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                pass
            case _:
                continue
        if not name.startswith("_"):
            yield name


def find_silent(name: str, tree: ast.Module) -> list[str]:
    """What of the public *name*, defined in *tree*, says nothing about itself."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    found = [node for node in tree.body if _is_of(node, name)]
    if not found:
        return [f"{name} (not found)"]
    silent: list[str] = []
    for node in found:
        match node:
            case ast.ClassDef():
                silent += _silent_in_class(node, classes)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                silent += [name] * (not _speaks(node))
            case _:
                silent += [name] * (not _is_text(_after(tree.body, node)))
    return silent


def _is_of(node: ast.stmt, name: str) -> bool:
    match node:
        case ast.ClassDef(name=found) | ast.AnnAssign(target=ast.Name(id=found)):
            return found == name
        case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found):
            return found == name and not _is_overload(node)
        case _:
            return False


def _silent_in_class(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> list[str]:
    silent = [node.name] * (not _speaks(node))
    for owner in _with_private_bases(node, classes):
        for part in owner.body:
            match part:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    speaks = _speaks(part) or _is_overload(part)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    speaks = _is_text(_after(owner.body, part))
                case _:
                    continue
            if not name.startswith("_") and not speaks:
                silent.append(f"{node.name}.{name}")
    return silent


def _with_private_bases(
    node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> Iterator[ast.ClassDef]:
    yield node
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id.startswith("_") and base.id in classes:
            yield from _with_private_bases(classes[base.id], classes)


def _speaks(node: Definition) -> bool:
    return bool((ast.get_docstring(node) or "").strip())


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(each).endswith("overload") for each in node.decorator_list)


def _after(body: list[ast.stmt], node: ast.stmt) -> ast.stmt | None:
    place = body.index(node) + 1
    return body[place] if place < len(body) else None


def _is_text(node: ast.stmt | None) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return bool(text.strip())
        case _:
            return False


CASES = [(door, each) for door in DOORS for each in public(door)]


@pytest.mark.parametrize(
    "each", [each for _, each in CASES], ids=[f"{door}.{each.name}" for door, each in CASES]
)
def test_a_public_name_and_all_of_its_parts_say_what_they_are(each: Public) -> None:
    assert find_silent(each.name, each.tree) == []


@pytest.mark.parametrize(
    ("door", "names"),
    [
        ("flowtrio", {"Agent", "EventStream", "RunContext", "Limits", "OpenAIClient", "tool"}),
        ("flowtrio.abc", {"LLMClient", "AgentLike", "ConversationStore", "Message"}),
        ("flowtrio.testing", {"check_events", "find_violations", "ScriptedModel", "Step"}),
        ("flowtrio.stores.memory", {"MemoryConversations"}),
    ],
)
def test_the_public_names_are_found(door: str, names: set[str]) -> None:
    assert {each.name for each in public(door)} >= names


PLANTED = {
    "class": ("class Agent:\n    x = 1", ["Agent"]),
    "function": ("def tool(): ...", ["tool"]),
    "async function": ("async def connect(): ...", ["connect"]),
    "value": ("Message: TypeAlias = dict", ["Message"]),
    "method": ('class A:\n    """A."""\n    def run(self): ...', ["A.run"]),
    "async method": ('class A:\n    """A."""\n    async def run(self): ...', ["A.run"]),
    "property": ('class A:\n    """A."""\n    @property\n    def x(self): ...', ["A.x"]),
    "field": ('class A:\n    """A."""\n    x: int\n    y: int\n    """Why."""', ["A.x"]),
    "last field": ('class A:\n    """A."""\n    x: int = 3', ["A.x"]),
    "field of a private base": (
        'class _B:\n    """B."""\n    x: int\nclass A(_B):\n    """A."""',
        ["A.x"],
    ),
    "empty docstring": ('class A:\n    """ """', ["A"]),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_part_that_says_nothing_is_found(kind: str) -> None:
    source, silent = PLANTED[kind]
    name = silent[0].partition(".")[0]

    assert find_silent(name, ast.parse(source)) == silent


def test_private_parts_dunders_and_overloads_need_not_speak() -> None:
    source = (
        'class A:\n    """A."""\n    _x: int\n    def _f(self): ...\n    def __repr__(self): ...\n'
        "    @overload\n    def run(self, x: int): ...\n"
        '    def run(self, x):\n        """Run."""\n'
    )

    assert find_silent("A", ast.parse(source)) == []
