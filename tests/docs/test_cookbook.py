"""The cookbook's recipes as they are used: turn after turn, on a server, cancelled, and failing."""

from __future__ import annotations

import ast
import re
import types
from pathlib import Path
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    EventType,
    Image,
    Orchestrator,
    ProviderError,
    StreamEngine,
    Text,
    ToolCall,
    tool,
)
from flowtrio.testing import FunctionModel, ScriptedModel, check_events, check_messages

COOKBOOK = Path(__file__).parents[2] / "docs" / "guides" / "cookbook.md"
T = EventType
_DEFINES = (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef, ast.AsyncFunctionDef)


def recipe(title: str) -> dict[str, Any]:
    """What a recipe defines, without what it does with that."""
    _, _, rest = COOKBOOK.read_text("utf-8").partition(f"\n## {title}\n")
    found = re.search(r"^```python\n(.*?)^```$", rest, re.M | re.S)
    assert found is not None
    tree = ast.parse(found[1])
    tree.body = [node for node in tree.body if isinstance(node, (*_DEFINES, ast.ClassDef))]
    module = types.ModuleType("recipe")
    exec(compile(tree, str(COOKBOOK), "exec", dont_inherit=True), vars(module))
    return vars(module)


async def play(
    agent: Any, *messages: Any, cancel_at: EventType | None = None
) -> tuple[list[list[Any]], list[tuple[str, str]]]:
    """Say something in a conversation of a server, turn by turn; logs, and what it comes to.

    The first run is cancelled at *cancel_at*.
    """
    logs = []
    async with Orchestrator(agents=[agent]) as orchestrator:
        for message in messages:
            run_id = await orchestrator.start(message, session_id="s")
            log: list[Any] = []
            async with orchestrator.attach(run_id) as follower:
                async for event in follower:
                    log.append(event)
                    if event.type is cancel_at and not logs:
                        follower.cancel("enough")
            check_events(log)
            logs.append(log)
        said = await orchestrator.conversations.load("default", "s")
    check_messages(said)
    return logs, [(m["role"], m["content"]) for m in said]


def statuses(logs: list[list[Any]]) -> list[str]:
    return [log[-1].data["status"] for log in logs]


async def test_a_summary_is_asked_once_a_turn_and_is_no_part_of_the_conversation() -> None:
    made = recipe("A history that is summarised")
    asked: list[str] = []

    @tool
    async def look() -> str:
        """Look."""
        return "found"

    def answer(request: Any) -> Any:
        text = str(request.messages[-1]["content"])
        asked.append(text.split("\n")[0])
        if text.startswith("Summarise this."):
            return "a summary"
        return [ToolCall("1", "look", {})] if text.startswith("And") else "fine"

    agent = Agent(
        llm_client=FunctionModel(answer),
        tools=[look],
        instructions="Be brief.",
        around_model=made["shorten"],
    )

    logs, said = await play(agent, "What is Rome?", "And Paris?", "And Oslo?")

    assert statuses(logs) == ["completed"] * 3
    assert asked[-3:] == ["Summarise this.", "And Oslo?", "found"]
    assert ("assistant", "a summary") not in said
    assert [role for role, _ in said].count("user") == 3


async def test_a_summary_that_fails_or_is_cancelled_leaves_the_conversation_whole() -> None:
    made = recipe("A history that is summarised")
    made["MOST"] = 0
    model = ScriptedModel("Rome", ["a summ", 60.0, "ary"], "a summary", "Oslo")
    agent = Agent(llm_client=model, around_model=made["shorten"])

    async with Orchestrator(agents=[agent]) as orchestrator:
        await orchestrator.process("one", session_id="s")
        async with orchestrator.process_stream("two", session_id="s") as stream:
            async for event in stream:
                if event.type is T.MESSAGE_CHUNK:
                    stream.cancel()
        assert await orchestrator.process("three", session_id="s") == "Oslo"
        said = await orchestrator.conversations.load("default", "s")

    assert [m["content"] for m in said] == ["one", "Rome", "two", "three", "Oslo"]


async def test_numbers_are_redacted_wherever_they_stand() -> None:
    made = recipe("Redaction")
    number = "4111 1111 1111 1111"

    @tool
    async def charge(card: str) -> list[str]:
        """Charge."""
        return [card]

    model = ScriptedModel([ToolCall("1", "charge", {"card": number})], "ok", "ok")
    agent = Agent(llm_client=model, tools=[charge], around_model=made["redact"])

    _, said = await play(agent, [Text(number), Image(url="https://example.com/a.png")], number)

    assert all(number not in str(request.messages) for request in model.requests)
    assert str(said).count(number) == 3


async def test_a_librarian_answers_once_and_knows_what_was_said_before() -> None:
    made = recipe("Retrieval with citations")

    logs, said = await play(made["librarian"], "When was Rome founded", "By whom")

    assert said == [
        ("user", "When was Rome founded"),
        ("assistant", "In 753 BC."),
        ("user", "By whom"),
        ("assistant", "By Romulus."),
    ]
    assert [m["content"] for m in made["model"].requests[1].messages][:2] == [
        "When was Rome founded",
        "In 753 BC.",
    ]
    assert [e.data["part"]["title"] for e in logs[0] if e.type is T.MESSAGE_PART] == ["Livy"]


async def test_who_chooses_an_agent_says_nothing_to_the_user() -> None:
    made = recipe("Handing over to another agent")

    logs, said = await play(made["desk"], "Where is my train?", "And my bill?")

    assert [text for _, text in said] == [
        *("Where is my train?", "Your train is late.", "And my bill?", "Your bill is paid."),
    ]
    assert all(e.agent != "root" for e in logs[0] if e.type is T.MESSAGE_COMPLETE)


async def test_an_agent_that_was_handed_over_to_fails_that_run_alone() -> None:
    made = recipe("Handing over to another agent")
    made["agents"]["travel"] = Agent(
        llm_client=ScriptedModel([ProviderError("busy")]), name="travel"
    )

    logs, said = await play(made["desk"], "Where is my train?", "And my bill?")

    assert statuses(logs) == ["error", "completed"]
    assert said[-1] == ("assistant", "Your bill is paid.")


async def test_a_cache_is_no_other_tenants() -> None:
    made = recipe("A cache of tool results")
    ran = []

    @tool
    async def whoami() -> str:
        """Who asks."""
        ran.append(1)
        return "you"

    def answer(request: Any) -> Any:
        is_told = request.messages[-1]["role"] == "tool"
        return "ok" if is_told else [ToolCall("1", "whoami", {})]

    agent = Agent(llm_client=FunctionModel(answer), tools=[whoami])
    orchestrator = Orchestrator(agents=[agent], around_tool=made["cached"])
    for tenant in ("a", "b", "a"):
        await orchestrator.process("Who am I?", tenant_id=tenant, session_id="s")

    assert len(ran) == 2


async def test_a_guard_denies_one_call_and_lets_the_other_run() -> None:
    made = recipe("A guardrail")
    calls = [ToolCall(f"{n}", "transfer", {"amount": n}) for n in (5000, 5)]
    model = ScriptedModel(calls, "done", "again")
    agent = Agent(llm_client=model, tools=[made["transfer"]], around_tool=made["guard"])

    logs, _ = await play(agent, "Send both", "And?")

    ends = {e.data["call_id"]: e.data["outcome"] for e in logs[0] if e.type is T.TOOL_CALL_END}
    assert ends == {"c1": "denied", "c2": "ok"}


async def test_a_process_is_told_as_it_ended_and_ends_with_its_call() -> None:
    """Under the real clock: what another process does, no virtual one knows."""
    made = recipe("A tool that runs a process")
    commands = ["echo fine", "echo oh >&2; exit 3"]
    calls = [ToolCall(f"{n}", "shell", {"command": c}) for n, c in enumerate(commands)]
    slow = ToolCall("3", "shell", {"command": "echo begun; sleep 100 & sleep 100"})
    model = ScriptedModel([slow], calls, "done")
    agent = Agent(llm_client=model, tools=[tool_like(made["shell"], timeout=60)])

    logs, _ = await play(agent, "Sleep", "Go", cancel_at=T.TOOL_CALL_START)

    assert statuses(logs) == ["cancelled", "completed"]
    ends = {e.data["call_id"]: e.data["result"] for e in logs[1] if e.type is T.TOOL_CALL_END}
    assert ends == {"c1": "fine\n(ended with 0)", "c2": "oh\n(ended with 3)"}


def tool_like(made: Any, **changes: Any) -> Any:
    """The same tool with other options."""
    return tool(**changes)(made.fn)


@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_a_report_reaches_the_conversation_early_or_late(
    seconds: float, autojump_clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    made = recipe("A run in the background that reports")
    made["researcher"] = Agent(llm_client=ScriptedModel([seconds, "21 degrees"]), name="r")
    asked: list[str] = []

    def answer(request: Any) -> Any:
        asked.append(str(request.messages[-1]["content"]))
        return [ToolCall("1", "wait", {})] if asked[-1] == "Find out" else "I see"

    agent = Agent(llm_client=FunctionModel(answer), tools=[made["wait"]])
    async with Orchestrator(agents=[agent], on_busy="post") as orchestrator:
        made["orchestrator"] = orchestrator
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made["research"], "s")
            await orchestrator.process("Find out", session_id="s")
        said = await orchestrator.conversations.load("default", "s")

    assert [m["content"] for m in said if m["role"] == "user"] == ["Find out", "21 degrees"]
    assert said[-1]["content"] == "I see"
    assert ("later" in capsys.readouterr().out) == (seconds > 1)


async def test_research_that_fails_is_reported(autojump_clock: Any) -> None:
    made = recipe("A run in the background that reports")
    made["researcher"] = Agent(llm_client=ScriptedModel([ProviderError("busy")]), name="r")
    agent = Agent(llm_client=FunctionModel(lambda request: "I see"))
    async with Orchestrator(agents=[agent], on_busy="post") as orchestrator:
        made["orchestrator"] = orchestrator
        await made["research"]("s")
        said = await orchestrator.conversations.load("default", "s")

    assert "busy" in said[0]["content"]


async def test_what_came_of_an_answer_is_of_that_answer_alone() -> None:
    source = COOKBOOK.read_text("utf-8").partition("\n## Structured output")[2]
    assert '"message_reset", "message_complete"' in source
    partial = recipe("Structured output, while it comes")["partial"]
    shown = []
    text = ""
    model = ScriptedModel(['{"city": '], ['{"city": "Ro', 'me"}'])
    async with StreamEngine().stream(Agent(llm_client=model, output=dict), "Rome?") as stream:
        async for event in stream:
            if event.type is T.MESSAGE_CHUNK:
                text += event.data["chunk"]
                shown.append(partial(text))
            elif event.type in (T.MESSAGE_RESET, T.MESSAGE_COMPLETE):
                text = ""

    assert shown[-1] == {"city": "Rome"}


async def test_one_failure_among_many_runs_ends_none_of_the_others() -> None:
    source = COOKBOOK.read_text("utf-8").partition("\n## A thousand runs")[2]
    program = re.search(r"^    async def one.*?(?=^    async with)", source, re.M | re.S)
    assert program is not None
    asked = []

    def answer(request: Any) -> str:
        asked.append(1)
        if len(asked) == 3:
            raise ProviderError("busy")
        return "fine"

    made = recipe("A thousand runs, with a limiter and a progress bar")
    made["agent"] = Agent(llm_client=FunctionModel(answer))
    made["answers"], made["failures"] = {}, {}
    made["progress"], made["task"] = _NoProgress(), 0
    exec("if True:\n" + program[0], made)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(made["one"], number)

    assert (len(made["answers"]), len(made["failures"])) == (9, 1)


class _NoProgress:
    def advance(self, task: int) -> None:
        """Show nothing."""
