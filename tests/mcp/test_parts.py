"""What each piece of the MCP door does alone: places, contents, lists, and what is refused."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import httpx2
import pytest
import trio
from mcp.client.stdio import StdioServerParameters
from mcp.server import Server
from mcp.shared.memory import create_client_server_memory_streams
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    EmbeddedResource,
    ErrorData,
    ImageContent,
    ListToolsResult,
    TextContent,
    TextResourceContents,
    Tool,
)

from flowtrio import Agent, EventType, RunContext, StreamEngine, ToolCall
from flowtrio._core._parts import File, Image
from flowtrio.mcp import McpToolFailed, mcp_tools
from flowtrio.mcp._calls import ServerCall
from flowtrio.mcp._content import result_of
from flowtrio.mcp._link import Link
from flowtrio.mcp._place import place_of
from flowtrio.mcp._questions import CANCELLED, answer_of
from flowtrio.testing import ScriptedModel
from tests.mcp._server import PNG, make
from tests.runtime._programs import agent_of, only, play

T = EventType


# Where a server is


def transport() -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("server", "label"),
    [
        ("https://u:secret@host.test:8/a/mcp?key=secret#f", "https://host.test:8/a/mcp"),
        (["uvx", "server"], "uvx"),
        (("uvx", "server"), "uvx"),
        (StdioServerParameters(command="npx"), "npx"),
        (make(), "bench"),
        (Server("low"), "low"),
        (transport, "transport"),
    ],
)
def test_a_place_is_called_what_is_not_secret(server: Any, label: str) -> None:
    assert place_of(server, None).label == label


@pytest.mark.parametrize(
    ("server", "error", "words"),
    [
        ("uvx server", ValueError, "a command is a list of its words"),
        ("ftp://host/", ValueError, "begins with http:// or https://"),
        ([], ValueError, "expected a command and its arguments"),
        (["uvx", 7], ValueError, "expected a command and its arguments"),
        (7, TypeError, "server=7: expected an address"),
    ],
)
async def test_what_is_no_server_is_refused_before_anything_is_started(
    server: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        async with mcp_tools(server):
            raise AssertionError


async def test_a_client_of_http_has_nothing_to_do_elsewhere() -> None:
    async with httpx2.AsyncClient() as client:
        with pytest.raises(TypeError, match="http_client= is for a server's address"):
            place_of(["uvx"], client)


async def asks_somebody(name: str, arguments: dict[str, Any]) -> bool:
    return False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefix": 7}, "prefix=7: expected a text"),
        ({"only": "add"}, "only='add': expected names, got a text"),
        ({"approval": "add"}, "approval='add': expected a bool, names, or a plain function"),
        ({"approval": 7}, "approval=7"),
        ({"approval": asks_somebody}, "expected a bool, names, or a plain function"),
    ],
)
async def test_options_are_checked_before_anything_is_started(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        async with mcp_tools(["/no/such/program"], **options):
            raise AssertionError


# Which tools


async def names(**options: Any) -> dict[str, Any]:
    """The names of the tools that there are, and what each asks a person."""
    found = {}

    async def body(ctx: RunContext) -> None:
        for tool in await tools.tools(ctx):
            asks = tool.needs_approval
            found[tool.name] = asks({"a": 1}) if callable(asks) else asks

    async with mcp_tools(make(), **options) as tools:
        await play(agent_of(body))
    return found


async def test_a_prefix_stands_before_the_names_and_only_some_are_offered() -> None:
    assert await names(prefix="bench.", only=["add", "greet.person", "gone"]) == {
        "bench_add": False,
        "bench_greet_person": False,
    }


@pytest.mark.parametrize(
    ("approval", "asks"),
    [
        (True, [True, True]),
        (["add"], [True, False]),
        (lambda name, arguments: name == "fail" and arguments == {"a": 1}, [False, True]),
    ],
)
async def test_a_person_approves_what_is_said(approval: Any, asks: list[bool]) -> None:
    assert list((await names(only=["add", "fail"], approval=approval)).values()) == asks


async def test_a_tool_is_made_once_as_long_as_it_stays_the_same() -> None:
    async def body(ctx: RunContext) -> None:
        assert list(await tools.tools(ctx)) == list(await tools.tools(ctx))

    async with mcp_tools(make()) as tools:
        await play(agent_of(body))


def lists(*pages: ListToolsResult) -> Server[Any]:
    """A server with pages of tools; the cursor is the next one's number."""

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        return pages[int(params.cursor or 0) if params else 0]

    return Server("pages", on_list_tools=list_tools)


def listed(name: str, schema: dict[str, Any] | None = None) -> Tool:
    return Tool(name=name, input_schema=schema or {"type": "object"})


async def offered(server: Any) -> list[str]:
    """The names of a server's tools, in two turns."""
    found = []

    async def body(ctx: RunContext) -> None:
        for _ in range(2):
            found.extend([tool.name for tool in await tools.tools(ctx)])

    async with mcp_tools(server) as tools:
        await play(agent_of(body))
    return found


async def test_all_pages_of_a_list_are_read() -> None:
    pages = [
        ListToolsResult(tools=[listed("a")], next_cursor="1"),
        ListToolsResult(tools=[listed("b")]),
    ]

    assert await offered(lists(*pages)) == ["a", "b"] * 2


async def test_a_list_without_an_end_is_left_at_some_time() -> None:
    endless = ListToolsResult(tools=[listed("a")], next_cursor="0")

    assert await offered(lists(endless)) == ["a", "a"]


async def test_a_tool_whose_schema_is_none_is_left_out_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "https://elsewhere.test/"}}}
    page = ListToolsResult(tools=[listed("odd", schema), listed("fine")])

    with caplog.at_level(logging.WARNING, "flowtrio"):
        assert await offered(lists(page)) == ["fine", "fine"]

    assert caplog.messages == [
        "the MCP server pages has a tool that cannot be offered: parameters of tool 'odd': the "
        "schema refers to 'https://elsewhere.test/', which it does not hold"
    ]


async def test_a_server_without_tools_has_none_and_stays() -> None:
    assert await offered(Server("empty")) == []


# What a tool gives


def text(*words: str, **options: Any) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=word) for word in words], **options)


WRAPPED = {"type": "object", "properties": {"result": {}}}
OTHER = {"type": "object", "properties": {"result": {}, "more": {}}}


@pytest.mark.parametrize(
    ("result", "schema", "value"),
    [
        (text(), None, None),
        (text("a", "b"), None, "a\nb"),
        (text('{"a": 1}', structured_content={"a": 1}), None, {"a": 1}),
        (text("7", structured_content={"result": 7}), WRAPPED, 7),
        (text("7", structured_content={"result": 7}), OTHER, {"result": 7}),
        (text("7", structured_content={"result": 7}), None, {"result": 7}),
        (text("[7]", structured_content=[7]), WRAPPED, [7]),
    ],
)
def test_what_is_structured_counts_before_its_text(
    result: CallToolResult, schema: Any, value: Any
) -> None:
    assert result_of(result, schema) == value


def test_a_failure_without_words_is_told_all_the_same() -> None:
    with pytest.raises(McpToolFailed, match="the tool gave no reason"):
        result_of(text(is_error=True), None)


def test_a_failure_has_its_reason_wherever_that_stands() -> None:
    failed = text(is_error=True, structured_content={"code": 7, "why": "no più"})
    with pytest.raises(McpToolFailed, match=r'^{"code": 7, "why": "no più"}$'):
        result_of(failed, None)

    for resource, words in (
        (TextResourceContents(uri="file:///log", text="full"), "^full$"),
        (BlobResourceContents(uri="file:///log", blob="QUJD"), "^the tool gave no reason$"),
    ):
        failed = CallToolResult(content=[EmbeddedResource(resource=resource)], is_error=True)
        with pytest.raises(McpToolFailed, match=words):
            result_of(failed, None)


def test_a_wrong_type_is_mended_by_the_bytes_and_no_bytes_are_refused() -> None:
    import base64

    data = base64.b64encode(PNG).decode()
    wrong = CallToolResult(content=[ImageContent(data=data, mime_type="image/jpeg")])

    assert result_of(wrong, None) == [Image(data=PNG)]

    for broken in ("!", ""):
        content = [AudioContent(data=broken, mime_type="audio/wav")]
        with pytest.raises(ValueError):
            result_of(CallToolResult(content=content), None)


def test_a_file_has_the_type_that_is_told() -> None:
    result = CallToolResult(content=[AudioContent(data="QUJD", mime_type="audio/x-odd")])

    assert result_of(result, None) == [File(data=b"ABC", media_type="audio/x-odd")]


@pytest.mark.parametrize("kind", [None, "binary"])
def test_a_file_whose_type_nobody_knows_is_one_of_bytes(kind: str | None) -> None:
    blob = BlobResourceContents(uri="file:///model", blob="QUJD", mime_type=kind)
    result = CallToolResult(content=[EmbeddedResource(resource=blob)])

    [file] = result_of(result, None)

    assert (file.media_type, file.name) == ("application/octet-stream", "model")


# The connection


class Flaky:
    """Transports to one server in this process, which can be cut, and refused."""

    def __init__(self) -> None:
        self.made = 0
        self.refuses = False
        self.cut = trio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        self.made += 1
        self.cut = trio.Event()
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise OSError("refused")
        server = lists(ListToolsResult(tools=[listed("a")]))
        async with create_client_server_memory_streams() as (ours, theirs):
            async with anyio.create_task_group() as group:
                options = server.create_initialization_options()
                group.start_soon(server.run, *theirs, options)
                group.start_soon(self._break)
                yield ours
                group.cancel_scope.cancel()

    async def _break(self) -> None:
        await self.cut.wait()
        raise OSError("cut")


async def test_all_who_want_a_new_connection_at_once_share_one_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flaky, found = Flaky(), []

    async def body(ctx: RunContext) -> None:
        found.append(len(await tools.tools(ctx)))

    async def many() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(StreamEngine().stream(agent_of(body), "go").result)

    with caplog.at_level(logging.WARNING, "flowtrio"):
        async with mcp_tools(flaky.connect) as tools:
            flaky.refuses = True
            flaky.cut.set()
            await trio.testing.wait_all_tasks_blocked()
            await many()
            assert (found, flaky.made) == ([0] * 5, 2)

            flaky.refuses = False
            await many()
            assert (found[5:], flaky.made) == ([1] * 5, 3)

    assert caplog.messages == [
        "lost the MCP server connect",
        "can't connect to the MCP server connect",
    ]


async def test_a_call_while_there_is_no_connection_ends_in_an_error() -> None:
    flaky = Flaky()

    async def body(ctx: RunContext) -> None:
        [tool] = await tools.tools(ctx)
        flaky.cut.set()
        await trio.testing.wait_all_tasks_blocked()
        await ctx.call(tool)

    async with mcp_tools(flaky.connect) as tools:
        async with StreamEngine().stream(agent_of(body), "go") as stream:
            log = [event async for event in stream]

    [end] = only(log, T.TOOL_CALL_END)
    assert end["error"] == "ConnectionError: there is no connection to the MCP server connect"


async def test_a_connection_that_is_wanted_while_the_link_is_closed_is_none() -> None:
    link = Link(lambda: pytest.fail("is closed"), "nowhere", 1)
    link.close()

    async with trio.open_nursery() as nursery:
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionError, match="connection was closed")):
            async with trio.open_nursery() as wanting:
                wanting.start_soon(link.connect)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(link.run)


async def test_ctrl_c_in_the_connections_task_leaves_the_block_bare() -> None:
    @asynccontextmanager
    async def interrupted() -> AsyncIterator[Any]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        async with mcp_tools(interrupted):
            raise AssertionError


async def test_after_the_block_there_are_no_tools() -> None:
    async with mcp_tools(make()) as tools:
        pass

    async def body(ctx: RunContext) -> None:
        assert await tools.tools(ctx) == []

    assert repr(tools) == "<McpTools of bench>"
    await play(agent_of(body))


# Reports


async def test_of_more_reports_than_are_read_the_oldest_go() -> None:
    async def call_tool(context: Any, params: Any) -> CallToolResult:
        for step in range(100):
            await context.session.report_progress(step, 100)
        return text("done")

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[listed("rush")])

    rushing = Server("rushing", on_list_tools=list_tools, on_call_tool=call_tool)
    model = ScriptedModel([ToolCall("p", "rush", {})], "fine")

    async with mcp_tools(rushing) as tools:
        async with StreamEngine().stream(Agent(llm_client=model, tools=[tools]), "go") as stream:
            log = [event async for event in stream]

    told = [data["progress"]["progress"] for data in only(log, T.TOOL_PROGRESS)]
    assert told == sorted(told)
    assert told[-1] == 99
    assert len(told) < 100


async def test_what_a_server_says_behind_the_end_of_a_call_is_for_nobody() -> None:
    class Client:
        async def call_tool(self, name: str, arguments: Any, progress_callback: Any) -> Any:
            self.note = progress_callback
            return text("done")

    client: Any = Client()
    call = ServerCall(cast("RunContext", None))
    params = ElicitRequestFormParams(message="Why?", requested_schema={"type": "object"})

    assert await call.run(client, "a", {}) == text("done")
    await client.note(1, None, None)
    assert await call.ask(params) == CANCELLED


# Questions


async def test_what_is_entered_at_an_address_is_only_agreed_to_here() -> None:
    params = ElicitRequestURLParams(message="Log in", url="https://bank.test/login")
    found = []

    async def body(ctx: RunContext) -> None:
        found.append(await answer_of(ctx, params))

    async def agree(stream: Any, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                stream.answer(event.data["request_id"], "done")

    played = await play(agent_of(body), reader=agree)

    assert only(played.log, T.INPUT_REQUIRED)[0]["prompt"] == "Log in\nhttps://bank.test/login"
    assert found == [ElicitResult(action="accept")]


@pytest.mark.parametrize("with_schema", [True, False])
async def test_an_answer_that_cannot_be_sent_to_a_server_is_refused_where_it_is_given(
    with_schema: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told to the server as if the user had gone; now the user hears what is wrong."""
    if not with_schema:
        monkeypatch.setitem(sys.modules, "jsonschema", None)
    row = {"type": "object", "properties": {"row": {"type": "integer"}}}
    params = ElicitRequestFormParams(message="Seat?", requested_schema=row)
    found, refused = [], []

    async def body(ctx: RunContext) -> None:
        found.append(await answer_of(ctx, params))

    async def answer(stream: Any, log: list[Any]) -> None:
        async for event in stream:
            log.append(event)
            if event.type is T.INPUT_REQUIRED:
                for given in ({"row": 7, "extra": {"deep": 1}}, [7], {"row": 7, "x": ["a"]}):
                    try:
                        stream.answer(event.data["request_id"], given)
                    except ValueError as exc:
                        refused.append(str(exc))

    played = await play(agent_of(body), reader=answer)

    assert only(played.log, T.INPUT_REQUIRED)[0]["schema"] == row
    assert found == [ElicitResult(action="accept", content={"row": 7, "x": ["a"]})]
    assert len(refused) == 2
    assert "at `$[...]`" in refused[0]


async def test_a_form_that_nobody_can_fill_is_the_servers_fault() -> None:
    """It heard that the user had gone, who was asked nothing."""
    fields = {"a": {"type": "string", "minLength": -1}}
    schema = {"type": "object", "properties": fields}
    params = ElicitRequestFormParams(message="Seat?", requested_schema=schema)
    found: list[Any] = []

    async def body(ctx: RunContext) -> None:
        found.append(await answer_of(ctx, params))

    played = await play(agent_of(body))

    assert only(played.log, T.INPUT_REQUIRED) == []
    assert isinstance(found[0], ErrorData)
    assert found[0].message.startswith("requestedSchema: expected a JSON Schema; at $.properties.a")


# The door


def test_without_the_sdk_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "flowtrio.mcp")

    with pytest.raises(ImportError, match=r"needs 'mcp': pip install 'flowtrio\[mcp\]'"):
        importlib.import_module("flowtrio.mcp")
