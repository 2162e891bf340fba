"""An agent as a tool of an MCP server, asked by the official SDK's client."""

from __future__ import annotations

import base64
import enum
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from mcp import Client, StdioServerParameters
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    ListRootsResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from flowtrio import (
    Agent,
    EventType,
    File,
    Image,
    InputDeclined,
    Limits,
    Orchestrator,
    RunContext,
    Text,
    ToolCall,
    tool,
)
from flowtrio.mcp import mcp_server, mcp_tools
from flowtrio.mcp._content import result_of
from flowtrio.mcp._putting import settle
from flowtrio.testing import ScriptedModel
from tests.mcp._server import PNG
from tests.runtime._programs import agent_of, only, play, tasks

T = EventType


@tool
async def weather(ctx: RunContext, city: str) -> str:
    """Weather."""
    await ctx.progress({"asked": city})
    return "sunny"


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    return "paid"


@tool
async def fails() -> None:
    """Fail."""
    raise ValueError("/secret/path")


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"p_{name}", name, arguments)


class Served:
    """A client of an agent that is served, and what it was told."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: list[str | None] = []

    async def ask(self, **arguments: Any) -> CallToolResult:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            self.told.append(message)

        return await self.client.call_tool("ask_agent", arguments, progress_callback=note)


@asynccontextmanager
async def served(
    agent: Any, answers: Any = None, mode: str = "legacy", **options: Any
) -> AsyncIterator[Served]:
    limits = options.pop("limits", Limits())
    orchestrator = agent if isinstance(agent, Orchestrator) else None
    orchestrator = orchestrator or Orchestrator(agents=[agent], limits=limits)
    server = mcp_server(orchestrator, **options)
    async with Client(server, mode=mode, elicitation_callback=answers) as client:
        yield Served(client)


def words(result: CallToolResult) -> tuple[bool, str]:
    [block] = result.content
    assert isinstance(block, TextContent)
    return result.is_error, block.text


def answering(asked: list[Any], *results: ElicitResult) -> Callable[..., Any]:
    """A user who answers one question after the other."""
    left = list(results)

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        # A form knows no references: what stands in it has nowhere to refer to.
        assert "$ref" not in str(params.requested_schema)
        return left.pop(0)

    return answer


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_agent_is_one_tool_whose_progress_tells_what_it_does(mode: str) -> None:
    model = ScriptedModel([call("weather", city="Rome")], "It is sunny.")

    async with served(Agent(llm_client=model, tools=[weather]), mode=mode) as agent:
        [listed] = (await agent.client.list_tools()).tools
        result = await agent.ask(message="What is it like in Rome?")

    assert listed.name == "ask_agent"
    assert words(result) == (False, "It is sunny.")
    assert agent.told == ["weather …", 'weather: {"asked": "Rome"}', "weather: ok"]


async def test_nested_agents_and_statuses_are_told_and_values_are_structured() -> None:
    async def helper(ctx: RunContext, message: str) -> str:
        return "yes"

    async def body(ctx: RunContext) -> dict[str, Any]:
        await ctx.status("thinking")
        return {"answer": await ctx.delegate(helper, "well?")}

    async with served(agent_of(body)) as agent:
        result = await agent.ask(message="well?")

    assert words(result) == (False, '{"answer":"yes"}')
    assert result.structured_content == {"answer": "yes"}
    assert agent.told == ["thinking", "root/helper …"]


async def test_an_orchestrator_that_is_open_stays_open() -> None:
    async with Orchestrator(agents=[Agent(llm_client=ScriptedModel("fine"))]) as orchestrator:
        async with served(orchestrator) as agent:
            assert words(await agent.ask(message="go")) == (False, "fine")
        assert orchestrator.is_open


async def test_a_conversation_goes_on_where_it_is_named() -> None:
    models = ScriptedModel("one", "two", "three")

    async with served(Agent(llm_client=models)) as agent:
        await agent.ask(message="a", session_id="s")
        await agent.ask(message="b", session_id="s")
        await agent.ask(message="c")

    assert [len(request.messages) for request in models.requests] == [1, 3, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "fails: ValueError ("),
        ({"debug": True}, "fails: ValueError: /secret/path"),
    ],
)
async def test_what_a_tool_raises_is_concealed(options: Any, expected: str) -> None:
    model = ScriptedModel([call("fails")], "sorry")

    async with served(Agent(llm_client=model, tools=[fails]), **options) as agent:
        assert words(await agent.ask(message="go")) == (False, "sorry")

    assert str(agent.told[-1]).startswith(expected)


async def test_a_run_that_fails_is_an_error() -> None:
    async def fail(ctx: RunContext) -> None:
        raise ValueError("/secret/path")

    async with served(agent_of(fail)) as agent:
        is_error, text = words(await agent.ask(message="go"))

    assert is_error
    assert text.startswith("ValueError (")


async def test_a_run_that_others_cancel_is_an_error_too() -> None:
    async def wait(ctx: RunContext) -> None:
        await trio.sleep_forever()

    orchestrator = Orchestrator(agents=[agent_of(wait)], on_busy="cancel")
    async with served(orchestrator) as agent, trio.open_nursery() as nursery:
        found = []

        async def first() -> None:
            found.append(words(await agent.ask(message="a", session_id="s")))
            nursery.cancel_scope.cancel()

        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        await agent.ask(message="b", session_id="s")

    assert found == [(True, "the run was cancelled")]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("other", {}, "there is no tool 'other'"),
        ("ask_agent", {}, "message: expected a text that is not empty"),
        ("ask_agent", {"message": ""}, "message: expected a text"),
        ("ask_agent", {"message": 7}, "message: expected a text"),
        ("ask_agent", {"message": "a", "session_id": None}, "session_id: expected a text"),
        ("ask_agent", {"message": "a", "tenant": "b"}, "unknown arguments: tenant"),
    ],
)
async def test_wrong_arguments_start_nothing(
    name: str, arguments: dict[str, Any], expected: str
) -> None:
    async with served(Agent(llm_client=ScriptedModel())) as agent:
        is_error, text = words(await agent.client.call_tool(name, arguments))

    assert is_error
    assert text.startswith(expected)


async def test_a_client_that_cancels_its_request_cancels_the_run() -> None:
    log = []

    async def body(ctx: RunContext) -> None:
        log.append("began")
        try:
            await trio.sleep_forever()
        finally:
            log.append("ended")

    before = tasks()
    async with served(agent_of(body)) as agent:
        with trio.move_on_after(60) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: agent.ask(message="go"))
                while not log:
                    await trio.sleep(0.01)
                scope.cancel()
        with trio.fail_after(60):
            while len(log) < 2:
                await trio.sleep(0.01)

    assert log == ["began", "ended"]
    assert tasks() == before


# People


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ElicitResult(action="accept", content={"approve": True}), "paid"),
        (ElicitResult(action="accept", content={"approve": False}), "denied"),
        (ElicitResult(action="decline"), "denied"),
        (ElicitResult(action="cancel"), "denied"),
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_approval_is_put_to_the_client(answer: ElicitResult, text: str, mode: str) -> None:
    asked: list[str] = []
    model = ScriptedModel([call("pay", amount=7)], "ok")

    async with served(
        Agent(llm_client=model, tools=[pay]), answering(asked, answer), mode
    ) as agent:
        await agent.ask(message="go")

    assert asked == ['Approve pay with {"amount": 7}?']
    assert model.requests[1].messages[-1]["content"].count(text) == 1


async def test_where_nobody_can_be_asked_an_approval_is_denied() -> None:
    async def broken(context: Any, params: Any) -> ElicitResult:
        raise ValueError("no user")

    for mode, answers in (("legacy", None), ("auto", None), ("legacy", broken)):
        model = ScriptedModel([call("pay", amount=7)], "ok")

        async with served(Agent(llm_client=model, tools=[pay]), answers, mode=mode) as agent:
            await agent.ask(message="go")

        assert "nobody can be asked" in model.requests[1].messages[-1]["content"]


@attrs.frozen
class Seat:
    row: int


class Side(enum.Enum):
    LEFT = "left"
    RIGHT = "right"


@attrs.frozen
class Sided:
    side: Side


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(
    ("schema", "content", "given"),
    [
        (None, {"answer": "7"}, "7"),
        (None, {}, "the answer does not fit: answer to q1: expected a text, got NoneType"),
        (int, {"answer": 7}, 7),
        (Seat, {"row": 7}, Seat(7)),
        (
            Seat,
            {"row": "seven"},
            "the answer does not fit: answer to q1: Expected `int`, got `str` - at `$.row`",
        ),
        (Seat, None, None),
        (list[Side], {"answer": ["left", "right"]}, [Side.LEFT, Side.RIGHT]),
        (Sided, {"side": "left"}, Sided(Side.LEFT)),
    ],
)
async def test_a_question_is_put_to_the_client(
    schema: Any, content: Any, given: Any, mode: str
) -> None:
    asked: list[str] = []
    action: Any = "decline" if content is None else "accept"
    found = []

    async def body(ctx: RunContext) -> str:
        try:
            found.append(await ctx.ask("Which row?", schema))
        except InputDeclined as exc:
            found.append(exc.reason)
        return "fine"

    answers = answering(asked, ElicitResult(action=action, content=content))
    async with served(agent_of(body), answers, mode) as agent:
        result = await agent.ask(message="go")

    assert asked == ["Which row?"]
    assert words(result) == (False, "fine")
    assert found == [given]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_images_and_files_that_an_agent_gives_are_contents(mode: str) -> None:
    """Also where the run has waited for an answer meanwhile; each kind as the protocol has it."""

    async def body(ctx: RunContext) -> Any:
        await ctx.ask("Which?")
        return [
            Text("see"),
            Image(data=PNG),
            7,
            File(data=b"A", media_type="audio/wav"),
            File(data=b"hello", media_type="text/plain", name="a b.txt"),
            File(data=b"\xff", media_type="text/plain"),
            File(url="https://host.test/a.pdf"),
        ]

    answers = answering([], ElicitResult(action="accept", content={"answer": "all"}))
    async with served(agent_of(body), answers, mode) as agent:
        result = await agent.ask(message="go")
    text, image, seven, sound, note, odd, link = result.content

    assert (text.text, seven.text) == ("see", "7")  # type: ignore[union-attr]
    assert result.structured_content is None
    assert isinstance(image, ImageContent)
    assert (base64.b64decode(image.data), image.mime_type) == (PNG, "image/png")
    assert isinstance(sound, AudioContent)
    assert isinstance(note, EmbeddedResource)
    assert isinstance(note.resource, TextResourceContents)
    assert note.resource.text == "hello"
    assert note.resource.uri.endswith("/4/a%20b.txt")
    assert isinstance(odd, EmbeddedResource)
    assert isinstance(odd.resource, BlobResourceContents)
    assert isinstance(link, ResourceLink)
    assert link.uri == "https://host.test/a.pdf"


@pytest.mark.parametrize("is_alone", [True, False])
async def test_what_an_agent_gives_is_read_again_as_it_was(is_alone: bool) -> None:
    async def body(ctx: RunContext) -> Any:
        return Image(data=PNG) if is_alone else (Text("a"), File(data=b"%PDF-1.7", name="b.pdf"))

    async with served(agent_of(body)) as agent:
        result = await agent.ask(message="go")

    given = [Image(data=PNG)] if is_alone else [Text("a"), File(data=b"%PDF-1.7", name="b.pdf")]
    assert result_of(result, None) == given


async def ask_name(ctx: RunContext) -> str:
    return f"Hello, {await ctx.ask('What is your name?')}"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("mine", "this is no state that was given here"),
        ("run:x", "this is no state that was given here"),
        ("run:7", "no run 'run' is known"),
    ],
)
async def test_a_state_that_was_not_given_finds_nothing(state: str, expected: str) -> None:
    async with served(agent_of(ask_name), mode="auto") as agent:
        result = await agent.client.call_tool(
            "ask_agent",
            {"message": "go"},
            request_state=state,
            input_responses={"approve:c1": ListRootsResult(roots=[])},
        )

    assert words(result) == (True, expected)


async def test_each_of_several_questions_at_once_is_asked() -> None:
    async def both(ctx: RunContext) -> list[str]:
        found = {}

        async def ask(name: str) -> None:
            found[name] = await ctx.ask(f"{name}?")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            nursery.start_soon(ask, "b")
        return [found["a"], found["b"]]

    async def say(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"answer": params.message})

    async with served(agent_of(both), say, "auto") as agent:
        result = await agent.ask(message="go")

    assert words(result) == (False, '["a?","b?"]')


def test_an_answer_to_what_was_never_asked_does_nothing() -> None:
    follower: Any = None

    settle(follower, "other:q1", ElicitResult(action="accept"))


# Over standard input and output


async def test_it_is_served_over_standard_input_and_output() -> None:
    async def body(ctx: RunContext) -> Any:
        [ask] = await tools.tools(ctx)
        return await ctx.call(ask, message="hello")

    command = StdioServerParameters(
        command=sys.executable, args=["-m", "tests.mcp._agent"], env=dict(os.environ)
    )
    async with mcp_tools(command, prefix="parrot_") as tools:
        played = await play(agent_of(body))

    [end] = only(played.log, T.TOOL_CALL_END)
    assert (end["tool_name"], end["result"]) == ("parrot_ask_agent", "hello!")
    assert [data["progress"]["message"] for data in only(played.log, T.TOOL_PROGRESS)] == [
        "listening"
    ]
