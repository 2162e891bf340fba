"""Who may import whom: data moves one way through the package, and so do its imports.

The imports are read from the source, so that those inside functions and under TYPE_CHECKING count
too. A rule that is broken is a sentence; the planted modules below show that each rule finds its
own kind of break.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import attrs
import pytest

import flowtrio

PACKAGE = Path(flowtrio.__file__).parent

VALUES = frozenset({"attrs", "msgspec"})
"""Libraries of values: they do nothing but hold them."""
ROOT = "flowtrio"
"""The layer of the public door, `flowtrio/__init__.py`."""


@attrs.frozen
class Layer:
    """What one layer may import beside the standard library and itself."""

    layers: frozenset[str]
    libraries: frozenset[str] = VALUES


def _layer(*layers: str, libraries: tuple[str, ...] = ()) -> Layer:
    return Layer(frozenset(layers), VALUES | frozenset(libraries))


RUNS = ("_run", "_agents", "_hosting")
"""From the inside to the outside: one run, what happens inside it, what happens around it."""
BELOW_TESTING = ("_core", "wire", "abc", *RUNS, "clients", "stores", "serving", "remote")

LAYERS = {
    "_core": _layer(),
    "wire": _layer("_core"),
    "abc": _layer("_core", libraries=("trio",)),
    "_run": _layer("_core", "abc", libraries=("trio", "outcome")),
    "_agents": _layer(
        *("_core", "abc", "_run"),
        libraries=("trio", "jsonschema", "jsonschema_specifications", "referencing"),
    ),
    "_hosting": _layer("_core", "abc", "_run", "_agents", libraries=("trio", "outcome")),
    "clients": _layer("_core", "wire", "abc", libraries=("trio", "httpx", "httpx2")),
    "stores": _layer("_core", "wire", "abc", libraries=("trio", "glide")),
    "page": _layer(),
    "serving": _layer(
        *("_core", "wire", "abc", *RUNS, "page"),
        libraries=("trio", "trio_websocket", "wsproto", "h11", "hypercorn", "prometheus_client"),
    ),
    "remote": _layer("_core", "wire", libraries=("trio", "trio_websocket", "wsproto", "h11")),
    "protocols": _layer("_core", "abc", "wire", "_agents", "serving", libraries=("trio",)),
    "asgi": _layer("_core", "serving"),
    "auth": _layer("_core", "abc", "serving", libraries=("trio", "httpx", "jwt")),
    "aio": _layer("_core", "_run", "_hosting", libraries=("trio",)),
    "sync": _layer("_core", "abc", "_run", "_hosting", libraries=("trio", "outcome")),
    "mcp": _layer(
        *("_core", *RUNS, "serving"),
        libraries=("trio", "mcp", "mcp_types", "httpx2"),
    ),
    "otel": _layer("_core", "abc", "_agents", libraries=("opentelemetry",)),
    "pictures": _layer("_core"),
    "testing": _layer(
        *(*BELOW_TESTING, "pictures", ROOT), libraries=("trio", "outcome", "hypothesis", "pytest")
    ),
    ROOT: _layer(*BELOW_TESTING),
    "cli": _layer(
        *(*BELOW_TESTING, ROOT, "asgi", "auth", "mcp", "otel", "pictures", "protocols", "testing"),
        libraries=(
            *("trio", "outcome", "httpx", "hypercorn", "opentelemetry"),
            *("rich", "prompt_toolkit"),
        ),
    ),
    "__main__": _layer("cli"),
}
"""The whole order, from the inside to the outside. A module outside it is refused."""

SANS_IO = frozenset({"_core", "wire"})
"""Layers without I/O and without a clock."""
IO_AND_CLOCKS = frozenset(
    {
        *("datetime", "random", "secrets", "time"),
        *("os", "pathlib", "signal", "sqlite3", "subprocess", "tempfile"),
        *("concurrent", "multiprocessing", "queue", "threading"),
        *("select", "selectors", "socket", "ssl", "urllib"),
    }
)
"""Modules of the standard library that such a layer has no use for."""

BETWEEN_LOOPS = frozenset(
    {"flowtrio._run._asyncio", "flowtrio.aio", "flowtrio.serving.http._asyncio_host"}
)
"""Modules that know asyncio, from which others reach Trio; none is imported before it has to be."""

EXCEPTIONS = {
    ("flowtrio._hosting._orchestrator", "flowtrio.stores.memory"): (
        "lazy",
        "an orchestrator that is given no stores makes them",
    ),
    ("flowtrio.abc._agents", "flowtrio._agents._context"): (
        "named",
        "an agent is called with a RunContext, and its interface has to say so",
    ),
    ("flowtrio.abc._agents", "flowtrio._agents._tools"): (
        "named",
        "a toolset gives tools, and its interface has to say so",
    ),
}
"""Imports against the order, each with its form and its reason.

``lazy`` is allowed inside a function only, ``named`` under TYPE_CHECKING only.
"""


CIRCLES = {
    ("flowtrio.abc._agents", "flowtrio._agents._context"): (
        "the interface of agents names their context"
    ),
}
"""Imports without which no module would come back to itself by what it imports, with the reason."""


@attrs.frozen
class Import:
    """One module that another one asks for."""

    module: str
    """Who asks."""
    target: str
    """The whole name of what is asked for."""
    name: str | None
    """What is asked for of it, where something is."""
    line: int
    form: str
    """``eager`` at import time, ``lazy`` inside a function, ``named`` for type checkers only."""


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in *source*, relative ones resolved against the name of *module*."""
    package = module if is_package else module.rpartition(".")[0]
    yield from _walk(ast.parse(source), module, package, "eager")


def _walk(node: ast.AST, module: str, package: str, form: str) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield Import(module, alias.name, None, node.lineno, form)
        case ast.ImportFrom(level=level, module=name, names=names):
            base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            whole = ".".join([*base, *([name] if name else [])])
            # `from flowtrio import wire` asks for flowtrio.wire; `from .x import Y` for the module.
            for alias in names:
                is_module = whole == ROOT or name is None
                target = f"{whole}.{alias.name}" if is_module else whole
                yield Import(module, target, alias.name, node.lineno, form)
        case ast.If(test=test, body=body, orelse=orelse) if "TYPE_CHECKING" in ast.unparse(test):
            for child in body:
                yield from _walk(child, module, package, "named")
            for child in orelse:
                yield from _walk(child, module, package, form)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            for child in ast.iter_child_nodes(node):
                yield from _walk(child, module, package, "lazy" if form == "eager" else form)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _walk(child, module, package, form)


def layer_of(module: str) -> str:
    """The layer that a module of ours belongs to."""
    return module.split(".")[1] if "." in module else ROOT


def layer_asked(target: str) -> str:
    """The layer that an import asks for; a public name, as in `from flowtrio import Agent`, is the
    door's."""
    layer = layer_of(target)
    is_module = (PACKAGE / layer).is_dir() or (PACKAGE / f"{layer}.py").is_file()
    return layer if is_module or layer in LAYERS else ROOT


def find_breaks(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What a module's imports break of the order, as sentences."""
    own = layer_of(module)
    if own not in LAYERS:
        return [f"{module}: no layer of that name is in the order"]
    found = imports_of(module, source, is_package=is_package)
    return [f"{i.module}:{i.line}: {text}" for i in found if (text := _judge(own, i))]


def _judge(own: str, asked: Import) -> str | None:
    top = asked.target.split(".")[0]
    if top == ROOT:
        return _judge_layer(own, asked)
    if top == "__future__":
        return None
    if top == "typing_extensions":
        # For type checkers only: nobody has to have it installed.
        return None if asked.form == "named" else f"{own} imports {asked.target} when it runs"
    if top == "asyncio":
        is_between = asked.module in BETWEEN_LOOPS
        return None if is_between else "only what stands between the loops knows asyncio"
    if top in sys.stdlib_module_names:
        if own in SANS_IO and top in IO_AND_CLOCKS:
            return f"{own} does no I/O and knows no clock, but imports {asked.target}"
        return None
    if top not in LAYERS[own].libraries:
        return f"{own} may not import {asked.target}"
    return None


def _judge_layer(own: str, asked: Import) -> str | None:
    target = layer_asked(asked.target)
    if target == own or target in LAYERS[own].layers:
        return None
    form, _ = EXCEPTIONS.get((asked.module, asked.target), (None, None))
    if form == asked.form:
        return None
    return f"{own} may not import {asked.target} ({asked.form})"


def _modules() -> dict[str, Path]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {_name(path): path for path in paths}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = _modules()


def modules_asked(module: str, source: str, *, is_package: bool = False) -> set[str]:
    """The modules of ours that a module asks for, in whatever form."""
    asked = set()
    for found in imports_of(module, source, is_package=is_package):
        inner = f"{found.target}.{found.name}"
        asked |= {inner if inner in MODULES else found.target} & (MODULES.keys() - {module})
    return asked


def find_circle(asked: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that each ask for the next, and the last for the first; empty if there are none."""
    left = {module: set(targets) & asked.keys() for module, targets in asked.items()}
    while ends := {module for module, targets in left.items() if not targets}:
        left = {module: targets - ends for module, targets in left.items() if module not in ends}
    # All that are left ask for one that is left: whoever follows that comes back.
    path: list[str] = sorted(left)[:1]
    while path and (following := min(left[path[-1]])) not in path:
        path.append(following)
    return path[path.index(following) :] if path else []


def _asked_by_all() -> dict[str, set[str]]:
    return {
        module: modules_asked(
            module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py"
        )
        for module, path in MODULES.items()
    }


# The order holds


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    path = MODULES[module]
    is_package = path.name == "__init__.py"
    breaks = find_breaks(module, path.read_text(encoding="utf-8"), is_package=is_package)

    assert breaks == []


def test_the_modules_of_every_inner_layer_are_found() -> None:
    layers = {layer_of(module) for module in MODULES}

    assert layers >= {*BELOW_TESTING, "testing", ROOT}


@pytest.mark.parametrize(("module", "target"), EXCEPTIONS)
def test_an_exception_that_nobody_needs_any_more_is_taken_back(module: str, target: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")

    assert target in {found.target for found in imports_of(module, source)}


def test_no_module_comes_back_to_itself_by_what_it_imports() -> None:
    asked = _asked_by_all()
    for module, target in CIRCLES:
        asked[module].discard(target)

    assert find_circle(asked) == []


@pytest.mark.parametrize("exception", CIRCLES)
def test_a_circle_that_is_gone_is_no_exception_any_more(exception: tuple[str, str]) -> None:
    asked = _asked_by_all()
    for module, target in CIRCLES.keys() - {exception}:
        asked[module].discard(target)

    assert set(exception) <= set(find_circle(asked))


# Each protocol is a room with one door


def find_side_doors(module: str, source: str) -> set[str]:
    """Modules of others' rooms among the protocols that a module asks for, but for their doors."""
    behind = {m for m in MODULES if m.startswith("flowtrio.protocols._") and m.count(".") > 2}
    behind -= {m for m in behind if m.endswith("._routes")}
    own = module.rpartition(".")[0]
    return {m for m in modules_asked(module, source) & behind if m.rpartition(".")[0] != own}


@pytest.mark.parametrize("module", MODULES)
def test_a_protocols_room_is_entered_by_its_door(module: str) -> None:
    assert find_side_doors(module, MODULES[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("module", ["flowtrio.cli._protocols", "flowtrio.protocols._agui._planted"])
def test_a_planted_side_door_is_found(module: str) -> None:
    source = "from flowtrio.protocols._openai._errors import Failure"

    assert find_side_doors(module, source) == {"flowtrio.protocols._openai._errors"}


# The order is noticed when it is broken

PLANTED = {
    "trio in the core": ("flowtrio._core._planted", "import trio"),
    "a part of trio in the core": ("flowtrio._core._planted", "from trio.lowlevel import x"),
    "a clock in the core": ("flowtrio._core._planted", "import time"),
    "httpx in a codec": ("flowtrio.wire._planted", "import httpx"),
    "a clock in a codec": ("flowtrio.wire._planted", "from datetime import datetime"),
    "a run in the core": ("flowtrio._core._planted", "from flowtrio._run import _run"),
    "a tool in a run": ("flowtrio._run._planted", "from flowtrio._agents._tools import Tool"),
    "an agent's context in a run, for type checkers": (
        "flowtrio._run._planted",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flowtrio._agents._context",
    ),
    "a recorder in a call": ("flowtrio._agents._planted", "import flowtrio._hosting._recorder"),
    "a run in the remote client": (
        "flowtrio.remote._planted",
        "from flowtrio._run._log import EventLog",
    ),
    "a codec in the core, relatively": ("flowtrio._core._planted", "from ..wire import _sse"),
    "a codec in a run": ("flowtrio._run._planted", "import flowtrio.wire._json"),
    "a client in a run": ("flowtrio._run._planted", "from flowtrio import clients"),
    "a server in a run, for type checkers": (
        "flowtrio._run._planted",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flowtrio.serving",
    ),
    "the testing kit in a run, inside a function": (
        "flowtrio._run._planted",
        "def f():\n    from flowtrio.testing import check_events",
    ),
    "the door in a run": ("flowtrio._run._planted", "from flowtrio import Agent"),
    "a run in a client": (
        "flowtrio.clients._planted",
        "from flowtrio._run._log import EventLog",
    ),
    "a store in a client": ("flowtrio.clients._planted", "from flowtrio.stores import memory"),
    "a client in a store": (
        "flowtrio.stores.planted",
        "from ..clients._stream import stream_reply",
    ),
    "a client in a server": ("flowtrio.serving.planted", "import flowtrio.clients._openai"),
    "httpx in a server": ("flowtrio.serving.planted", "import httpx"),
    "the testing kit in a server": ("flowtrio.serving.planted", "import flowtrio.testing"),
    "the testing kit behind the door": ("flowtrio", "from flowtrio.testing import ScriptedModel"),
    "hypothesis in a store": ("flowtrio.stores.planted", "async def f():\n    import hypothesis"),
    "asyncio anywhere": ("flowtrio.cli._main", "import asyncio"),
    "an interface that runs something": (
        "flowtrio.abc._planted",
        "from flowtrio._hosting._engine import StreamEngine",
    ),
    "the named exception at import time": (
        "flowtrio.abc._agents",
        "from flowtrio._agents._context import RunContext",
    ),
    "the lazy exception at import time": (
        "flowtrio._hosting._orchestrator",
        "from flowtrio.stores.memory import MemoryConversations",
    ),
    "a new place outside the order": ("flowtrio.extras", "import json"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_break_of_the_order_is_found(name: str) -> None:
    module, source = PLANTED[name]
    breaks = find_breaks(module, source, is_package=module == ROOT)

    assert len(breaks) == 1
    assert breaks[0].startswith(module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("flowtrio._core._planted", "import json, attrs\nfrom . import _law\nimport msgspec.json"),
        ("flowtrio.wire._planted", "from flowtrio._core._events import EventType"),
        ("flowtrio._run._planted", "from ._run import Run\nfrom ..abc import LLMClient"),
        (
            "flowtrio._hosting._orchestrator",
            "def f():\n    from flowtrio.stores.memory import MemoryConversations",
        ),
        ("flowtrio.testing._planted", "import flowtrio.clients._openai, hypothesis"),
        ("flowtrio.cli._main", "from flowtrio.testing import check_events"),
    ],
)
def test_what_the_order_allows_is_left_alone(module: str, source: str) -> None:
    assert find_breaks(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from ._run import Run",
        "from . import _run",
        "from flowtrio._run import _run",
        "import flowtrio._run._run",
        "def f():\n    from ._run import Run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._run import Run",
    ],
)
def test_a_planted_circle_is_found_in_whatever_form(source: str) -> None:
    # What everything else of a run imports.
    innermost, run = "flowtrio._run._info", "flowtrio._run._run"
    asked = _asked_by_all()
    for module, target in CIRCLES:
        asked[module].discard(target)
    asked[innermost] |= modules_asked(innermost, source)
    circle = find_circle(asked)

    assert {innermost, run} <= set(circle)
    assert all(then in asked[one] for one, then in pairwise([*circle, circle[0]]))


# Nobody asks another package's objects for what is private

PUBLIC_ALL_THE_SAME = frozenset({"_replace", "_value_", "_exit"})
"""Names of the standard library's that begin with an underscore and are not private."""


def own_private_names(trees: Iterable[ast.AST]) -> set[str]:
    """What begins with an underscore and is defined in some modules, in whatever form."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
            case ast.Attribute(attr=name, value=ast.Name(id="self"), ctx=ast.Store()):
                found.add(name)
    return {name for name in found if name.startswith("_")}


def private_names_asked(tree: ast.AST) -> Iterator[str]:
    """What begins with an underscore and is asked of something else than oneself, or imported."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if name.startswith("_") and not name.endswith("__"):
                yield name
            case ast.ImportFrom(module=str(module), names=names) if "." in module:
                yield from (alias.name for alias in names if alias.name.startswith("_"))


@functools.cache
def private_names_of(layer: str | None) -> set[str]:
    """What is private to a package of ours; to any of them for None."""
    paths = [path for module, path in MODULES.items() if layer in (None, layer_of(module))]
    return own_private_names(ast.parse(path.read_text("utf-8")) for path in paths)


def find_crossings(layer: str, source: str) -> set[str]:
    """Private names of other packages of ours that a module of *layer* asks for."""
    others = private_names_of(None) - private_names_of(layer) - PUBLIC_ALL_THE_SAME
    return set(private_names_asked(ast.parse(source))) & others


@pytest.mark.parametrize("layer", LAYERS)
def test_no_package_asks_another_for_what_is_private(layer: str) -> None:
    sources = [path for module, path in MODULES.items() if layer_of(module) == layer]
    found = [crossing for path in sources for crossing in find_crossings(layer, path.read_text())]

    assert [name for name in found if name not in ALLOWED_CROSSINGS.get(layer, ())] == []


ALLOWED_CROSSINGS: dict[str, set[str]] = {
    # Trio's own, which is also a name of ours; see tests/test_private_parts.py.
    "testing": {"_run"},
}


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("serving", "def f(orchestrator):\n    return orchestrator._recorder"),
        ("_hosting", "def f(stream):\n    return stream._in_loop"),
        ("clients", "from flowtrio.wire._calls import _Nesting"),
    ],
)
def test_a_planted_look_at_what_is_private_is_found(layer: str, source: str) -> None:
    assert len(find_crossings(layer, source)) == 1


# No room is so full that nobody wants to live in it

MOST_LINES_OF_A_MODULE = 450
MOST_LINES_OF_A_CLASS = 300
LONGER = {}
"""What is longer all the same, and why."""


def lengths(module: str, source: str) -> dict[str, int]:
    """Lines of a module and of its classes, of those that are too long."""
    found = {module: source.count("\n")} if source.count("\n") > MOST_LINES_OF_A_MODULE else {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MOST_LINES_OF_A_CLASS:
                found[f"{module}.{node.name}"] = length
    return found


def test_what_is_longer_than_others_says_why() -> None:
    sources = {module: path.read_text("utf-8") for module, path in MODULES.items()}
    found = [name for module, source in sources.items() for name in lengths(module, source)]

    assert sorted(found) == sorted(LONGER)


def test_a_planted_length_is_found() -> None:
    source = "class Long:\n" + "    x = 1\n" * MOST_LINES_OF_A_MODULE

    assert lengths("m", source) == {"m": 451, "m.Long": 451}
