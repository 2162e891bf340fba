"""The support desk does what its page says: in parallel, kept in a file, and counted by tenant."""

from __future__ import annotations

import importlib.util
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flowtrio import EventType, Orchestrator, SQLiteConversations, SQLiteStore

EXAMPLE = Path(__file__).parents[1] / "examples" / "support_desk.py"
T = EventType


@pytest.fixture(scope="module")
def example() -> Any:
    """The example's module."""
    spec = importlib.util.spec_from_file_location("support_desk", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pydantic looks for the types of fields in their module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_it_is_no_longer_than_an_example_may_be() -> None:
    assert EXAMPLE.read_text("utf-8").count("\n") <= 250


def make(example: Any, file: Path) -> Any:
    return Orchestrator(
        agents=[example.triage],
        app=example.Desk(orders={"77": "a kettle, 40 euros"}),
        prices=example.PRICES,
        store=SQLiteStore(file),
        conversations=SQLiteConversations(file),
    )


async def serve(orchestrator: Any, tenant: str) -> list[Any]:
    log = []
    stream = orchestrator.process_stream("Order 77 rattles.", tenant, session_id="kettle")
    async with stream:
        async for event in stream:
            log.append(event)
            if event.type is T.APPROVAL_REQUIRED:
                stream.approve(event.data["call_id"])
    return log


def cost(log: list[Any]) -> Decimal:
    return Decimal(log[-1].data["usage"]["cost"])


async def test_specialists_work_at_once_and_each_tenant_pays_for_its_own_across_restarts(
    example: Any, tmp_path: Path
) -> None:
    file = tmp_path / "desk.db"
    async with make(example, file) as orchestrator:
        first = await serve(orchestrator, "acme")
        other = await serve(orchestrator, "globex")
    async with make(example, file) as orchestrator:
        said = await orchestrator.conversations.load("acme", "kettle")
        again = await serve(orchestrator, "acme")
        kept = await orchestrator.conversations.load("acme", "kettle")
        others = await orchestrator.conversations.load("globex", "kettle")

    agents = [e.type for e in first if e.type in (T.AGENT_START, T.AGENT_END)]
    assert agents == [T.AGENT_START, T.AGENT_START, T.AGENT_END, T.AGENT_END]
    assert [m["role"] for m in said] == ["user", "assistant"]
    assert kept[:2] == said
    assert len(kept) == 4
    assert len(others) == 2
    for log in (first, other, again):
        told = [e.data["usage"] for e in log if e.type is T.MESSAGE_COMPLETE and e.data["usage"]]
        assert cost(log) == sum(Decimal(usage["cost"]) for usage in told)
        assert sum(usage["prompt_tokens"] for usage in told) == 3800
        assert log[-1].data["usage"]["prompt_tokens"] == 3800
    assert cost(first) == cost(other) == cost(again) > 0
