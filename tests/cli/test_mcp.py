"""``flowtrio serve --mcp``: the served agent has the tools of other servers too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flowtrio import Agent, Orchestrator, RunContext, Tool, ToolCall
from flowtrio.cli._load import UsageError, make_orchestrator
from flowtrio.cli._main import main
from flowtrio.cli._mcp import open_servers
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import agent_of, play

SERVED = """
from flowtrio import Agent, DemoClient, Orchestrator
agent = Agent(llm_client=DemoClient())
async def body(ctx, message): ...
orchestrator = Orchestrator(agents=[agent])
"""


class Empty:
    async def tools(self, ctx: RunContext) -> Sequence[Tool[..., Any]]:
        return []


async def test_servers_are_named_by_their_command_lines() -> None:
    found = []

    async def body(ctx: RunContext) -> None:
        found.extend([tool.name for each in toolsets for tool in await each.tools(ctx)])

    async with open_servers([f"'{sys.executable}' -m tests.mcp._agent"]) as toolsets:
        await play(agent_of(body))
        model = ScriptedModel([ToolCall("p", "ask_agent", {"message": "hi"})], "fine")
        agent = Agent(llm_client=model, tools=toolsets)
        assert await Orchestrator(agents=[agent]).process("go") == "fine"

    assert found == ["ask_agent"]
    assert model.requests[1].messages[-1]["content"] == "hi!"


async def test_two_servers_with_a_tool_of_one_name_are_told_apart() -> None:
    command = f"'{sys.executable}' -m tests.mcp._agent"
    model = ScriptedModel([ToolCall("p", "b_ask_agent", {"message": "hi"})], "fine")

    async with open_servers([command, f"b_={command}"]) as toolsets:
        agent = Agent(llm_client=model, tools=toolsets)
        assert await Orchestrator(agents=[agent]).process("go") == "fine"

    names = [tool["function"]["name"] for tool in model.requests[0].tools]
    assert names == ["ask_agent", "b_ask_agent"]
    assert model.requests[1].messages[-1]["content"] == "hi!"


async def test_without_any_nothing_is_opened() -> None:
    async with open_servers([]) as toolsets:
        assert toolsets == []


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("/no/such/program --x", "--mcp: can't connect to the MCP server /no/such/program"),
        ("http://127.0.0.1:1/mcp", "--mcp: can't connect to the MCP server http://127.0.0.1:1/mcp"),
        ("http://127.0.0.1:1/mcp?a=b", "--mcp: can't connect to the MCP server http://127.0.0.1:1"),
        ("", "--mcp: server=[]: expected a command and its arguments"),
        ("'open", "--mcp: No closing quotation"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_in_one_line(
    server: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--no-http", "--ws-port", "0", "--mcp", server]) == 2

    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flowtrio: ")]
    assert len(lines) == 1
    assert words in lines[0]


def test_without_the_sdk_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "flowtrio.mcp", raising=False)

    assert main(["serve", "--no-http", "--ws-port", "0", "--mcp", "uvx server"]) == 2
    assert "flowtrio: --mcp needs 'mcp': pip install 'flowtrio[mcp]'" in capsys.readouterr().err


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "has_tools.py").write_text(SERVED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("served")
def test_an_agents_own_tools_stay_and_others_have_none() -> None:
    toolset = Empty()

    [demo] = make_orchestrator(None, None, {}, [toolset]).agents or ()
    [own] = make_orchestrator("demo", "has_tools:agent", {}, [toolset]).agents or ()

    assert isinstance(demo, Agent)
    assert demo.tools[-1] is toolset
    assert len(demo.tools) == 4
    assert isinstance(own, Agent)
    assert own.tools == (toolset,)

    with pytest.raises(UsageError, match="has_tools:body is no Agent: --mcp does not apply to it"):
        make_orchestrator(None, "has_tools:body", {}, [toolset])

    with pytest.raises(UsageError, match="is an orchestrator: --mcp does not apply to it"):
        make_orchestrator(None, "has_tools:orchestrator", {}, [toolset])
