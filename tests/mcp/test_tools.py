"""A server's tools, in every way in which a server is reached, by the official SDK's server."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp.client.stdio import StdioServerParameters

from flowtrio import Agent, AgentEvent, EventType, Limits, RunContext, StreamEngine, ToolCall
from flowtrio._core._parts import File, Image
from flowtrio.mcp import McpTools, mcp_tools
from flowtrio.testing import ScriptedModel
from tests.mcp._reached import COMMAND, WAYS, reached, run, serve_http
from tests.mcp._server import PNG, make
from tests.runtime._programs import agent_of, only, tasks
from tests.support.command import children_of

T = EventType

pytestmark = pytest.mark.filterwarnings(
    # The SDK leaves an answer's stream when it has the answer.
    "ignore:Async generator 'http:ResourceWarning"
)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


every_way = pytest.mark.parametrize("way", WAYS, ids="-".join)


def calls(*given: tuple[str, dict[str, Any]]) -> list[ToolCall]:
    """Calls of one reply."""
    return [ToolCall(f"p{n}", name, arguments) for n, (name, arguments) in enumerate(given)]


def ends(log: list[AgentEvent]) -> dict[str, Any]:
    """Each call's result, or its outcome and error."""
    return {
        data["call_id"]: data["result"]
        if data["outcome"] == "ok"
        else (data["outcome"], data["error"])
        for data in only(log, T.TOOL_CALL_END)
    }


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.005)


# Calls


@every_way
async def test_its_tools_are_listed_checked_and_called(way: tuple[str, str]) -> None:
    before = tasks()
    model = ScriptedModel(
        calls(
            ("add", {"a": 1, "b": 2}),
            ("greet_person", {"name": "Ann"}),
            ("fail", {}),
            ("add", {"a": "one", "b": 2}),
        ),
        "fine",
    )

    async with reached(way) as tools:
        log = await run(Agent(llm_client=model, tools=[tools]))

    assert ends(log) == {
        "c1": 3,
        "c2": "Hello, Ann",
        "c3": ("error", "McpToolFailed: Error executing tool fail"),
        "c4": (
            "error",
            "ValueError: arguments of 'add': expected \"integer\", got string - at `$.a`",
        ),
    }
    assert tasks() == before

    told = {spec["function"]["name"]: spec["function"] for spec in model.requests[0].tools}
    assert told["add"]["description"] == "Add two numbers."
    assert list(told["add"]["parameters"]["properties"]) == ["a", "b"]


@every_way
async def test_eight_calls_at_once_report_each_its_own_progress(way: tuple[str, str]) -> None:
    names = [f"n{number}" for number in range(8)]
    model = ScriptedModel(calls(*[("steps", {"name": name}) for name in names]), "fine")

    async with reached(way) as tools:
        log = await run(Agent(llm_client=model, tools=[tools]))

    assert sorted(ends(log).values()) == names
    progress: dict[str, list[Any]] = {}
    for data in only(log, T.TOOL_PROGRESS):
        progress.setdefault(data["call_id"], []).append(data["progress"])
    assert progress == {
        call_id: [{"progress": step, "total": 3, "message": f"{name} {step}"} for step in (1, 2, 3)]
        for call_id, name in ends(log).items()
    }


async def test_what_is_no_text_becomes_parts() -> None:
    found = []

    async def body(ctx: RunContext) -> None:
        [look] = [tool for tool in await tools.tools(ctx) if tool.name == "look"]
        found.extend(await ctx.call(look))

    async with mcp_tools(make(), only=["look"]) as tools:
        log = await run(agent_of(body))

    assert found[1] == Image(data=PNG, media_type="image/png")
    assert isinstance(found[2], File)
    assert found[2].media_type == "audio/wav"
    assert [part.text for part in (found[0], found[3], found[4])] == [
        "see",
        "note: note://1 (A note)",
        "inside",
    ]
    assert (found[5].media_type, found[5].name) == ("application/pdf", "b.pdf")
    assert only(log, T.TOOL_CALL_END)[0]["result"][1]["kind"] == "image"


@pytest.mark.parametrize("way", WAYS[1:], ids="-".join)
async def test_a_list_that_changes_is_another_one_in_the_next_turn(way: tuple[str, str]) -> None:
    model = ScriptedModel(calls(("grow", {})), calls(("grown", {})), "fine")

    async with reached(way) as tools:
        log = await run(Agent(llm_client=model, tools=[tools]))

    assert list(ends(log).values()) == ["ok", "grown"]


# Stopping


@every_way
async def test_what_stops_a_call_reaches_the_server_and_the_session_works_on(
    way: tuple[str, str], tmp_path: Path
) -> None:
    outcomes = {}

    async with reached(way) as tools:
        for by in ("cancel_tool", "cancel", "deadline"):
            outcomes[by] = await stopped(tools, by, tmp_path / by)

        again = ScriptedModel(calls(("add", {"a": 1, "b": 1})), "fine")
        log = await run(Agent(llm_client=again, tools=[tools]))

    assert outcomes == {"cancel_tool": "cancelled", "cancel": "cancelled", "deadline": "timeout"}
    assert ends(log) == {"c1": 2}


async def stopped(tools: McpTools, by: str, diary: Path) -> str:
    """How a call ends that is stopped in a way; returns when the server has noticed."""

    def words() -> list[str]:
        return diary.read_text().split() if diary.exists() else []

    model = ScriptedModel(calls(("sleep", {"diary": str(diary)})), "stopped")
    limits = Limits(tool=0.3 if by == "deadline" else 60)
    agent = Agent(llm_client=model, tools=[tools])
    outcome = ""
    async with StreamEngine(limits=limits).stream(agent, "go") as stream:
        async for event in stream:
            if event.type is T.TOOL_CALL_START:
                await until(lambda: words() == ["began"])
                if by == "cancel_tool":
                    stream.cancel_tool("c1")
                elif by == "cancel":
                    stream.cancel("enough")
            if event.type is T.TOOL_CALL_END:
                outcome = event.data["outcome"]
    await until(lambda: words() == ["began", "cancelled"])
    return outcome


# People


async def answer_with(stream: Any, text: str | None) -> list[AgentEvent]:
    log = []
    async for event in stream:
        log.append(event)
        if event.type is T.INPUT_REQUIRED and text is not None:
            stream.answer(event.data["request_id"], text)
    return log


@every_way
async def test_a_servers_question_is_asked_under_its_call(way: tuple[str, str]) -> None:
    # Of two calls at once, an old version over a pipe does not tell which one asks.
    is_clear = way != ("process", "legacy")
    others = [("add", {"a": 1, "b": 1})] if is_clear else []
    model = ScriptedModel(calls(("book", {}), *others), "fine")

    async with reached(way) as tools:
        agent = Agent(llm_client=model, tools=[tools])
        async with StreamEngine().stream(agent, "go") as stream:
            log = await answer_with(stream, '{"row": 7}')

    [asked] = only(log, T.INPUT_REQUIRED)
    assert (asked["prompt"], asked["call_id"]) == ("Which seat?", "c1")
    assert list(asked["schema"]["properties"]) == ["row", "window"]
    assert ends(log)["c1"] == "row 7"


async def test_a_question_that_nobody_answers_is_cancelled() -> None:
    model = ScriptedModel(calls(("book", {})), "fine")

    async with mcp_tools(make(), mode="legacy") as tools:
        agent = Agent(llm_client=model, tools=[tools])
        async with StreamEngine(limits=Limits(input=0.1)).stream(agent, "go") as stream:
            log = await answer_with(stream, None)

    assert ends(log) == {"c1": "cancel"}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_question_may_be_declined(mode: str) -> None:
    model = ScriptedModel(calls(("book", {})), "fine")
    log = []

    async with mcp_tools(make(), mode=mode) as tools:
        agent = Agent(llm_client=model, tools=[tools])
        async with StreamEngine().stream(agent, "go") as stream:
            async for event in stream:
                log.append(event)
                if event.type is T.INPUT_REQUIRED:
                    stream.dismiss(event.data["request_id"])

    assert ends(log) == {"c1": "decline"}


async def test_a_process_of_an_old_version_asks_nobody_where_another_user_might_be_meant(
    tmp_path: Path,
) -> None:
    diary = tmp_path / "diary"

    async def hold(ctx: RunContext) -> None:
        [sleep] = [tool for tool in await tools.tools(ctx) if tool.name == "sleep"]
        await ctx.call(sleep, diary=str(diary))

    async with mcp_tools(COMMAND, mode="legacy") as tools:
        other = StreamEngine().stream(agent_of(hold), "hold")
        async with other as held:
            async for event in held:
                if event.type is T.TOOL_CALL_START:
                    break
            await until(diary.exists)
            model = ScriptedModel(calls(("book", {})), "fine")
            log = await run(Agent(llm_client=model, tools=[tools]))

    assert only(log, T.INPUT_REQUIRED) == []
    assert ends(log) == {"c1": "cancel"}


@pytest.mark.parametrize("way", [w for w in WAYS if w != ("process", "legacy")], ids="-".join)
async def test_elsewhere_each_run_is_asked_its_own_questions(way: tuple[str, str]) -> None:
    logs: dict[str, list[AgentEvent]] = {}

    async def one(name: str, row: int) -> None:
        model = ScriptedModel(calls(("book", {})), "fine")
        async with StreamEngine().stream(Agent(llm_client=model, tools=[tools]), name) as stream:
            logs[name] = await answer_with(stream, f'{{"row": {row}}}')

    async with reached(way) as tools, trio.open_nursery() as nursery:
        for row in range(4):
            nursery.start_soon(one, f"run {row}", row)

    assert {name: ends(log)["c1"] for name, log in logs.items()} == {
        f"run {row}": f"row {row}" for row in range(4)
    }


# Servers that die


async def test_calls_of_a_server_that_dies_end_in_an_error_and_the_next_turn_has_a_new_one(
    tmp_path: Path,
) -> None:
    diary = tmp_path / "diary"
    model = ScriptedModel(
        calls(("sleep", {"diary": str(diary)}), ("die", {})),
        calls(("add", {"a": 1, "b": 1})),
        "fine",
    )

    async with mcp_tools(COMMAND) as tools:
        log = await run(Agent(llm_client=model, tools=[tools]))

    assert list(ends(log).values()) == [("error", "MCPError: Connection closed")] * 2 + [2]


async def test_a_server_that_does_not_come_back_has_no_tools_and_the_agent_goes_on(
    tmp_path: Path,
) -> None:
    script = tmp_path / "server.py"
    script.write_text("from tests.mcp._server import make\nmake().run('stdio')\n")
    parameters = StdioServerParameters(
        command=sys.executable, args=[str(script)], env={"PYTHONPATH": os.getcwd()}
    )
    model = ScriptedModel(calls(("die", {})), calls(("add", {"a": 1, "b": 1})), "alone")

    async with mcp_tools(parameters) as tools:
        script.write_text("raise SystemExit\n")
        log = await run(Agent(llm_client=model, tools=[tools]))

    assert ends(log)["c2"] == ("error", "there is no tool of that name; there are: none")
    assert [bool(request.tools) for request in model.requests] == [True, False, False]


async def test_a_server_at_an_address_may_go_and_come_back() -> None:
    async def ask() -> dict[str, Any]:
        model = ScriptedModel(calls(("add", {"a": 1, "b": 1})), "fine")
        return ends(await run(Agent(llm_client=model, tools=[tools])))

    async with trio.open_nursery() as nursery:
        url, server = await nursery.start(serve_http, make())
        async with mcp_tools(url) as tools:
            assert await ask() == {"c1": 2}

            server.cancel()
            gone = await ask()
            assert gone == {"c1": ("error", "there is no tool of that name; there are: none")}

            port = int(url.rpartition(":")[2].partition("/")[0])
            _, server = await nursery.start(serve_http, make(), port)
            assert await ask() == {"c1": 2}
        server.cancel()


# The block


async def test_nothing_of_it_is_alive_after_the_block(tmp_path: Path) -> None:
    before, diary = tasks(), tmp_path / "diary"
    model = ScriptedModel(calls(("sleep", {"diary": str(diary)})), "fine")

    with pytest.raises(ZeroDivisionError):
        async with mcp_tools(COMMAND) as tools:
            agent = Agent(llm_client=model, tools=[tools])
            async with StreamEngine().stream(agent, "go") as stream:
                async for event in stream:
                    if event.type is T.TOOL_CALL_START:
                        await until(diary.exists)
                        raise ZeroDivisionError

    assert tasks() == before
    assert diary.read_text().split() == ["began", "cancelled"]


async def test_a_block_that_is_cancelled_takes_its_process_along() -> None:
    before = children_of(os.getpid())
    with trio.CancelScope() as scope:
        async with mcp_tools(COMMAND):
            assert children_of(os.getpid()) > before
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert children_of(os.getpid()) <= before


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (["/no/such/program"], "can't connect to the MCP server /no/such/program: FileNotFound"),
        (["true"], "can't connect to the MCP server true: MCPError: Connection closed"),
        ("http://u:secret@127.0.0.1:1/mcp?key=secret", "server http://127.0.0.1:1/mcp: ConnectErr"),
    ],
)
async def test_where_there_is_no_server_entering_says_so(server: Any, words: str) -> None:
    before = tasks()

    with pytest.raises(ConnectionError, match=words) as caught:
        async with mcp_tools(server):
            raise AssertionError

    assert "secret" not in str(caught.value)
    assert tasks() == before


async def test_a_server_that_says_nothing_is_given_up() -> None:
    with pytest.raises(ConnectionError, match="sh: TimeoutError: no answer within"):
        async with mcp_tools(["sh", "-c", "cat > /dev/null"], seconds=0.2):
            raise AssertionError
