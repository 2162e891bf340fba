"""The public doors: every name comes from one place, says where it lives, and costs no library.

What counts as public is what a door shows by ``dir()`` without an underscore, modules aside.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import flowtrio
import flowtrio.abc
import flowtrio.asgi
import flowtrio.auth
import flowtrio.mcp
import flowtrio.otel
import flowtrio.protocols
import flowtrio.testing

PACKAGE = Path(flowtrio.__file__).parent
DOORS = {
    "flowtrio": flowtrio,
    "flowtrio.asgi": flowtrio.asgi,
    "flowtrio.mcp": flowtrio.mcp,
    "flowtrio.protocols": flowtrio.protocols,
    "flowtrio.otel": flowtrio.otel,
    "flowtrio.auth": flowtrio.auth,
    "flowtrio.testing": flowtrio.testing,
}
"""Modules that only hand on what others define."""

PROMISED = frozenset(
    {
        *("StreamEngine", "StreamMode", "EventType", "AgentEvent", "EventStream", "project"),
        *("Agent", "RunContext", "tool", "Tool", "AgentStatus"),
        *("Limits", "ModelLimits", "ServerLimits"),
        *("Orchestrator", "serve_websocket"),
        *("OpenAIClient", "AzureOpenAIClient", "AnthropicClient", "GeminiClient"),
        *("OllamaClient", "DashScopeClient", "FallbackClient", "DemoClient"),
        *("Chunk", "Completion", "ToolCall", "Usage"),
        *("MemoryStore", "SQLiteStore", "MemoryConversations", "SQLiteConversations", "connect"),
        *("RedisStore", "RedisConversations", "Fenced"),
        *("FlowtrioError", "RunFailed", "RunCancelled", "ToolFailed", "ProviderError"),
        *(
            "InputDeclined",
            "ReplayGap",
            "ProtocolError",
            "LocalProtocolError",
            "RemoteProtocolError",
        ),
    }
)
"""What people type. A name may wait for its code, but code may not wait for its name."""

HEAVY = frozenset(
    {
        *("httpx", "httpx2", "httpcore", "h11", "h2", "ssl"),
        *("trio_websocket", "wsproto", "hypercorn"),
        *("rich", "prompt_toolkit", "hypothesis", "pytest", "sqlite3"),
        *("mcp", "opentelemetry", "pydantic", "jsonschema"),
        *("glide", "glide_shared", "anyio"),
    }
)
"""What nobody should pay for who only runs agents, with the library that it comes with."""


def public_names(module: ModuleType) -> list[str]:
    """What a module shows: neither private names nor modules."""
    shown = [name for name in dir(module) if not name.startswith("_") and name != "annotations"]
    return [name for name in shown if not inspect.ismodule(getattr(module, name))]


def handed_on(source: str) -> dict[str, list[str]]:
    """Each name that a door hands on, with every module it takes it from."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowtrio"):
            for alias in node.names:
                if alias.asname == alias.name:
                    found.setdefault(alias.name, []).append(node.module or "")
    return found


def defined(source: str) -> list[str]:
    """The public names that a module defines at its top level, once for each definition."""
    names: list[str] = []
    for node in _top_level(ast.parse(source).body):
        match node:
            case ast.ClassDef(name=name):
                names.append(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not any("overload" in ast.unparse(each) for each in node.decorator_list):
                    names.append(name)
            case ast.Assign(targets=targets):
                names += [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case _:
                pass
    return [name for name in names if not name.startswith("_")]


def _top_level(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _top_level([*node.body, *node.orelse])


def find_doubles(names: Iterable[str], sources: Mapping[str, str]) -> list[str]:
    """Which of *names* are not defined in exactly one of the modules, once; as sentences."""
    places: dict[str, list[str]] = {name: [] for name in names}
    for module, source in sources.items():
        for name in defined(source):
            if name in places:
                places[name].append(module)
    return [
        f"{name}: defined in {', '.join(found) or 'no module'}"
        for name, found in places.items()
        if len(found) != 1
    ]


def find_unexported(promised: Iterable[str], shown: Iterable[str], sources: Mapping[str, str]):
    """Which promised names exist in some module but are not shown."""
    existing = {name for source in sources.values() for name in defined(source)}
    return sorted(set(promised) & existing - set(shown))


def imported_by(program: str) -> set[str]:
    """The top-level modules that are loaded after *program* ran in an interpreter of its own."""
    tell = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-W", "error", "-c", f"{program}\n{tell}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
EXPORTED = [(door, name) for door, module in DOORS.items() for name in public_names(module)]
WITH_A_HOME = [
    (door, name)
    for door, name in EXPORTED
    if inspect.isclass(value := getattr(DOORS[door], name)) or inspect.isroutine(value)
]


# One place for each name


@pytest.mark.parametrize("door", DOORS)
def test_a_door_takes_each_name_from_one_module_and_that_one_defines_it(door: str) -> None:
    taken = handed_on(SOURCES[door])
    twice = [name for name, modules in taken.items() if len(modules) != 1]
    wrong = [name for name, [module] in taken.items() if name not in defined(SOURCES[module])]

    assert taken
    assert twice == []
    assert wrong == []


@pytest.mark.parametrize("door", DOORS)
def test_a_door_shows_what_it_hands_on_and_nothing_else(door: str) -> None:
    assert sorted(public_names(DOORS[door])) == sorted(handed_on(SOURCES[door]))


def test_no_public_name_is_defined_twice_in_the_package() -> None:
    assert find_doubles((name for _, name in EXPORTED), SOURCES) == []


def test_no_two_doors_show_the_same_name() -> None:
    shown = Counter(name for _, name in EXPORTED) + Counter(public_names(flowtrio.abc))

    assert [name for name, count in shown.items() if count > 1] == []


def test_a_second_definition_or_a_missing_one_is_found() -> None:
    sources = {"a": "class Agent: ...", "b": "def tool(): ...\nAgent = 1", "c": "_Agent = 1"}
    doubles = find_doubles(["Agent", "tool", "project"], sources)

    assert doubles == ["Agent: defined in a, b", "project: defined in no module"]


@pytest.mark.parametrize(("door", "name"), WITH_A_HOME)
def test_a_public_class_or_function_says_that_it_lives_at_its_door(door: str, name: str) -> None:
    value = getattr(DOORS[door], name)

    assert value.__module__ == door
    assert getattr(importlib.import_module(value.__module__), value.__qualname__) is value


VALUES = [
    flowtrio.AgentEvent(
        flowtrio.EventType.CUSTOM, {"name": "n", "value": None}, 3, "r", "root", 1.5
    ),
    flowtrio.Chunk(content="Pa", usage=flowtrio.Usage(prompt_tokens=3)),
    flowtrio.ToolArgs(0, "id", "forecast", "{"),
    flowtrio.Usage(completion_tokens=7),
    flowtrio.ToolCall("id", "forecast", {"city": "Paris"}),
    flowtrio.Completion(content="Paris", finish_reason="stop"),
]
"""One of each public value that programs store, send or decode."""


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_the_types_of_a_public_values_fields_are_found_from_its_door(value: object) -> None:
    # msgspec looks them up by name in the module that the class says it lives in.
    text = msgspec.json.encode(value)

    assert msgspec.json.encode(msgspec.json.decode(text, type=type(value))) == text
    assert typing.get_type_hints(type(value))


def test_type_checkers_see_the_lazy_names_that_the_door_imports_when_they_are_asked_for() -> None:
    # Both are written down by hand, since type checkers do not run __getattr__.
    taken = handed_on(SOURCES["flowtrio"])

    assert {name: taken[name][0] for name in flowtrio._LAZY} == flowtrio._LAZY
    assert set(flowtrio._LAZY) <= set(dir(flowtrio))


def test_a_star_gives_every_public_name_and_nothing_else() -> None:
    given: dict[str, object] = {}
    exec("from flowtrio import *", given)
    del given["__builtins__"]

    assert sorted(given) == sorted(public_names(flowtrio)) == sorted(flowtrio.__all__)
    assert all(value is getattr(flowtrio, name) for name, value in given.items())


def test_a_name_that_nobody_exports_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="'flowtrio' has no attribute 'Agents'"):
        flowtrio.Agents  # noqa: B018


# What was promised


def test_a_promised_name_is_exported_as_soon_as_it_exists() -> None:
    assert find_unexported(PROMISED, public_names(flowtrio), SOURCES) == []


def test_a_promised_name_that_was_forgotten_at_the_door_is_found() -> None:
    sources = {"a": "class GeminiClient: ...", "b": "class Other: ..."}

    assert find_unexported(PROMISED, ["Agent"], sources) == ["GeminiClient"]


def test_the_names_of_the_quick_start_are_there() -> None:
    assert {"StreamEngine", "StreamMode", "EventType", "Agent", "tool"} <= set(dir(flowtrio))


# What importing costs


@pytest.mark.parametrize("module", ["flowtrio", "flowtrio.abc", "flowtrio.testing"])
def test_importing_a_door_loads_no_library_that_only_some_need(module: str) -> None:
    # trio brings ssl itself; it would be there without us.
    loaded = imported_by(f"import {module}") - imported_by("import trio, attrs, msgspec")

    assert "flowtrio" in loaded
    assert loaded & HEAVY == set()


def test_a_store_on_redis_loads_its_client_when_it_is_first_asked_something() -> None:
    loaded = imported_by("from flowtrio import RedisStore; RedisStore('redis://somewhere')")

    assert "flowtrio" in loaded
    assert loaded & {"glide", "glide_shared", "anyio"} == set()


@pytest.mark.parametrize("module", ["flowtrio", "flowtrio.sync"])
def test_who_does_not_use_asyncio_does_not_load_it(module: str) -> None:
    loaded = imported_by(f"import {module}")

    assert "flowtrio" in loaded
    assert "asyncio" not in loaded


def test_a_library_that_is_loaded_at_import_time_is_found() -> None:
    loaded = imported_by("import flowtrio, trio_websocket")

    assert loaded & HEAVY >= {"trio_websocket", "wsproto"}


def test_asking_for_the_version_needs_no_library_either() -> None:
    loaded = imported_by("import flowtrio; assert flowtrio.__version__")

    assert loaded & {"httpx", "trio_websocket", "rich", "hypothesis"} == set()
