"""The tables of the guides say what the code says."""

from __future__ import annotations

import asyncio
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio
from websockets.exceptions import InvalidStatus

import flowtrio
from flowtrio import (
    DemoClient,
    EventType,
    Limits,
    ModelLimits,
    Orchestrator,
    RunContext,
    ServerLimits,
    StreamEngine,
    StreamMode,
    Tool,
    serve_websocket,
)
from flowtrio._core._modes import VISIBLE
from flowtrio.testing import ScriptedModel, simulate
from flowtrio.wire._frames import _COMMANDS, encode_accepted, encode_rejected
from tests.docs.test_blocks import prelude

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def guide(name: str) -> str:
    return (GUIDES / f"{name}.md").read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table whose first heading is *heading*."""
    found: list[list[str]] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line[:1] == "|" else []
        if found and not cells:
            break
        if found or (cells and cells[0] == heading):
            found.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return found[:1] + found[2:]


def names(cell: str) -> list[str]:
    """What stands as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# Modes


def modes_of(text: str) -> dict[str, set[str]]:
    head, *body = rows(text, "event")
    modes = [names(cell)[0] for cell in head[1:]]
    return {
        mode: {names(row[0])[0] for row in body if row[place] == "yes"}
        for place, mode in enumerate(modes, start=1)
    }


def test_the_table_of_modes_is_that_of_the_code() -> None:
    expected = {mode.name: {type.name for type in types} for mode, types in VISIBLE.items()}

    assert modes_of(guide("streaming")) == expected


def test_the_table_of_modes_has_each_type_once() -> None:
    _, *body = rows(guide("streaming"), "event")

    assert sorted(names(row[0])[0] for row in body) == sorted(EventType.__members__)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| `CUSTOM` | yes | | | |", "| `CUSTOM` | yes | yes | | |"),
        ("| `ERROR` | yes | yes | yes | yes |", "| `ERROR` | yes | yes | yes | |"),
        ("| `DONE` | yes | yes | yes | yes |\n", ""),
    ],
)
def test_a_wrong_cell_is_noticed(old: str, new: str) -> None:
    text = guide("streaming")
    changed = modes_of(text.replace(old, new))

    assert old in text
    assert changed != modes_of(text)
    assert set(changed) == {mode.name for mode in StreamMode}


# Frames


def commands_of(text: str) -> dict[str, tuple[set[str], set[str]]]:
    _, *body = rows(text, "type")
    return {names(row[0])[0]: (set(names(row[1])), set(names(row[2]))) for row in body}


def commands_of_the_code() -> dict[str, tuple[set[str], set[str]]]:
    found = {}
    for name, struct in _COMMANDS.items():
        fields = [field for field in msgspec.structs.fields(struct) if field.name != "type"]
        required = {field.encode_name for field in fields if field.required}
        found[name] = (required, {field.encode_name for field in fields} - required)
    return found


def test_the_frames_from_the_client_are_those_of_the_code() -> None:
    assert commands_of(guide("websocket")) == commands_of_the_code()


@pytest.mark.parametrize(
    ("old", "new"), [("`run_id`, `call_id` |", "`run_id` |"), ("| `cancel` |", "| `stop` |")]
)
def test_a_frame_that_says_something_else_is_noticed(old: str, new: str) -> None:
    assert commands_of(guide("websocket").replace(old, new)) != commands_of_the_code()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("accepted", encode_accepted("r", "run")),
        ("rejected", encode_rejected("r", "code", "error")),
    ],
)
def test_the_replies_are_those_of_the_code(reply: str, text: str) -> None:
    section = guide("websocket").partition("## Frames from the server")[2]
    told = {names(row[0])[0]: names(row[1]) for row in rows(section, "type")[1:] if names(row[0])}

    assert ["type", *told[reply]] == list(msgspec.json.decode(text))


def test_the_key_that_a_reply_has_only_where_a_run_is_over_is_that_of_the_code() -> None:
    section = guide("websocket").partition("## Frames from the server")[2]
    [row] = [row for row in rows(section, "type") if names(row[0]) == ["accepted"]]
    more = msgspec.json.decode(encode_accepted("r", "run", is_over=True))

    assert names(row[2]) == [key for key in more if key not in ("type", *names(row[1]))]


async def test_the_client_in_the_guide_talks_to_a_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = block_with("websocket", "def talk")
    orchestrator = Orchestrator(llm_client=DemoClient(delay=0))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(serve_websocket, orchestrator, "127.0.0.1", 0)
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/chat"
            result = await program["talk"](url, "Hello")
            nursery.cancel_scope.cancel()

    assert capsys.readouterr().out == result


async def test_the_client_of_asyncio_in_the_guide_brings_its_token() -> None:
    program = block_with("websocket", "def ask")
    orchestrator = Orchestrator(llm_client=DemoClient(delay=0))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket, orchestrator, "127.0.0.1", 0, token="good")
            [listener] = await nursery.start(serve)
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/chat"

            def ask(token: str) -> Any:
                return asyncio.run(program["ask"](url, token, "Hello"))

            assert await trio.to_thread.run_sync(ask, "good") == "completed"
            with pytest.raises(InvalidStatus) as refused:
                await trio.to_thread.run_sync(ask, "bad")
            nursery.cancel_scope.cancel()

    assert refused.value.response.status_code == 401


async def test_the_test_of_order_in_the_guide_passes_and_can_fail() -> None:
    program = block_with("testing", "def test_the_answer_comes_after_the_call")
    program["agent"] = prelude()["agent"]
    test = program["test_the_answer_comes_after_the_call"]

    await test(StreamEngine(), lambda *turns: ScriptedModel(*turns))
    with pytest.raises(AssertionError):
        await test(StreamEngine(), lambda *turns: ScriptedModel("Sunny."))


def block_with(name: str, words: str) -> dict[str, Any]:
    """Run the one block of a guide that has some words; gives its names."""
    blocks = re.findall(r"```python\n(.*?)```", guide(name), re.DOTALL)
    [source] = [block for block in blocks if words in block]
    program: dict[str, Any] = {}
    exec(source, program)
    return program


# Orders


def order_of(tasks: int, seed: int) -> tuple[str, ...]:
    """The order in which tasks go that become ready at once."""

    async def crowd(ctx: RunContext, message: str) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(ctx.custom, str(number))

    events = simulate(crowd, "go", schedule=seed).events
    return tuple(e.data["name"] for e in events if e.type is EventType.CUSTOM)


@pytest.mark.parametrize("row", rows(guide("testing"), "tasks")[1:], ids=lambda row: row[0])
def test_seeds_see_that_share_of_orders_which_the_guide_tells(row: list[str]) -> None:
    tasks, orders, *shares = (float(cell.rstrip(" %").replace(",", "")) for cell in row)
    # Not as far as the last column, which takes as long as all else here.
    seen = [order_of(int(tasks), seed) for seed in range(500)]

    assert orders == math.factorial(int(tasks))
    for seeds, told in zip((100, 500), shares[:2], strict=True):
        share = 100 * len(set(seen[:seeds])) / orders
        assert share == pytest.approx(told, rel=0.1, abs=0.05)


# Limits


def _fields(cls: Any) -> dict[str, Any]:
    return {field.name: field.default for field in attrs.fields(cls)}


def _number(text: str) -> float:
    """``16 KiB``, ``1,024 frames``, ``5 s`` as the number that the code has."""
    value, _, unit = text.partition(" ")
    return float(value.replace(",", "")) * {"KiB": 1024, "MiB": 1024**2}.get(unit, 1)


def test_the_limits_of_a_server_are_those_of_the_code() -> None:
    told: dict[str, float] = {}
    for limit, default, *_ in rows(guide("security"), "limit")[1:]:
        if names(limit) == ["media_types"]:
            continue
        if default == "none":
            told |= dict.fromkeys(names(limit), math.inf)
            continue
        values = re.split(r", (?=\d)", default)
        told |= {name: _number(value) for name, value in zip(names(limit), values, strict=True)}

    known = _fields(ServerLimits)
    del known["media_types"]
    known = {name: math.inf if value is None else value for name, value in known.items()}

    assert told == known


def test_the_deadlines_are_those_of_the_code() -> None:
    text = guide("cancelling-and-deadlines").partition("## Deadlines")[2]
    told = {name for row in rows(text, "name")[1:] for name in names(row[0])}
    defaults = _fields(Limits) | _fields(ModelLimits)
    where = " ".join(row[1] for row in rows(text, "name")[1:])

    assert told == {"run", "tool", "approval", "input", "grace", *_fields(ModelLimits)}
    assert {name: float(value) for name, value in re.findall(r"(\w+)=(\d+)", where)} == {
        name: defaults[name] for name in told
    }


# Tools and contexts


def test_the_options_of_a_tool_are_those_of_the_code() -> None:
    told = {names(row[0])[0].removesuffix("=") for row in rows(guide("tools"), "option")[1:]}
    given = {"fn", "description", "is_async", "given_name", "_form"}

    assert told == set(_fields(Tool)) - given


def test_the_verbs_of_a_context_are_those_of_the_code() -> None:
    told = {
        name
        for row in rows(guide("custom-agents"), "verb")[1:]
        for name in re.findall(r"ctx\.(\w+)", row[0])
    }
    verbs = {
        name
        for name, value in vars(RunContext).items()
        if not name.startswith("_") and callable(value)
    }

    assert told == verbs - {"progress"}, "progress belongs to tools"


# The tour


def test_the_tour_of_the_modules_names_modules_that_exist() -> None:
    text = (GUIDES.parent / "design.md").read_text("utf-8").partition("## A tour")[2]
    told = [name for row in rows(text, "module")[1:] for name in names(row[0])]
    package = Path(flowtrio.__file__).parent
    folders = {
        path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"
    }

    assert [name for name in told if not (package / name).is_file()] == []
    assert {name.partition("/")[0] for name in told if "/" in name} == folders


def test_each_program_of_the_cookbook_is_short() -> None:
    programs = re.findall(
        r"^```python\n(.*?)^```$", (GUIDES / "cookbook.md").read_text(), re.M | re.S
    )

    assert len(programs) == 13
    assert max(program.count("\n") for program in programs) <= 40
