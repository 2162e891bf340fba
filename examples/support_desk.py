"""A support desk: a triage agent, two specialists at once, and everything around them.

Its tools are slow, fail, ask for approval and report progress; its answers are pydantic models, its
messages have photos, its conversations are in SQLite, and each tenant's cost is counted. The models
are functions of what they are asked: put your clients in their place.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import attrs
import trio
from pydantic import BaseModel, Field

from flowtrio import (
    Agent,
    AgentEvent,
    EventType,
    Image,
    Limits,
    Orchestrator,
    RunContext,
    SQLiteConversations,
    SQLiteStore,
    Text,
    ToolCall,
    Usage,
    tool,
)
from flowtrio.abc import Part
from flowtrio.testing import FunctionModel, ScriptedRequest

PRICES = {"house": {"prompt": "0.50", "completion": "2.00"}}
PHOTO = b"\x89PNG\r\n\x1a\n"


# What is answered


class Finding(BaseModel):
    """What one specialist found."""

    department: str
    advice: str
    confidence: float = Field(ge=0, le=1)


class Ticket(BaseModel):
    """What the desk answers."""

    photos: int
    findings: list[Finding]


# What the tools share


@attrs.define
class Desk:
    """The application, as tools find it in ``ctx.app``."""

    orders: dict[str, str]
    refunds: dict[str, int] = attrs.Factory(dict)
    is_restarting: bool = True


@tool(timeout=5)
async def search_manuals(question: str) -> str:
    """Search the manuals; takes a while."""
    await trio.sleep(0.2)
    return "A rattling kettle wants descaling."


@tool
async def examine_photo(ctx: RunContext[Desk], regions: int) -> str:
    """Look at each region of a photo."""
    for region in range(1, regions + 1):
        await trio.sleep(0.02)
        await ctx.progress({"region": region, "of": regions})
    return "The lid is bent."


@tool(retries=2, backoff=0.05, retry_on=ConnectionError)
async def read_order(ctx: RunContext[Desk], number: str) -> str:
    """Read an order."""
    if ctx.app.is_restarting:
        ctx.app.is_restarting = False
        raise ConnectionError("the order system is restarting")
    return ctx.app.orders[number]


@tool(needs_approval=True)
async def refund(ctx: RunContext[Desk], number: str, euros: int) -> str:
    """Pay money back."""
    # The same for each try of one call, so that the bank pays once.
    key = ctx.idempotency_key
    assert key is not None
    ctx.app.refunds[key] = euros
    return f"{euros} euros are paid back for order {number}"


# Who works


class House(FunctionModel):
    """The house's model; prices are found by its name."""

    model = "house"


def technician_says(request: ScriptedRequest) -> list[str | ToolCall | Usage]:
    """Look things up, then answer."""
    if request.messages[-1]["role"] != "tool":
        return [
            ToolCall("1", "search_manuals", {"question": "rattling"}),
            ToolCall("2", "examine_photo", {"regions": 3}),
            Usage(prompt_tokens=900, completion_tokens=40),
        ]
    finding = Finding(department="technical", advice="Descale it.", confidence=0.8)
    return [finding.model_dump_json(), Usage(prompt_tokens=1100, completion_tokens=30)]


def clerk_says(request: ScriptedRequest) -> list[str | ToolCall | Usage]:
    """Read the order, pay money back, then answer."""
    results = [message for message in request.messages if message["role"] == "tool"]
    if not results:
        return [ToolCall("1", "read_order", {"number": "77"}), Usage(prompt_tokens=500)]
    if len(results) == 1:
        return [ToolCall("2", "refund", {"number": "77", "euros": 20}), Usage(prompt_tokens=600)]
    finding = Finding(department="billing", advice="20 euros come back.", confidence=1)
    return [finding.model_dump_json(), Usage(prompt_tokens=700, completion_tokens=20)]


technician = Agent(
    llm_client=House(technician_says),
    name="technician",
    instructions="You know kettles.",
    tools=[search_manuals, examine_photo],
    output=Finding,
)
clerk = Agent(
    llm_client=House(clerk_says),
    name="clerk",
    tools=[read_order, refund],
    output=Finding,
)


async def triage(ctx: RunContext[Desk], message: str) -> Ticket:
    """Ask both specialists at once, with all that the customer sent."""
    findings: list[Finding] = []

    async def ask(specialist: Agent[Finding]) -> None:
        findings.append(await ctx.delegate(specialist, ctx.parts))

    async with trio.open_nursery() as nursery:
        for specialist in (technician, clerk):
            nursery.start_soon(ask, specialist)
    photos = sum(isinstance(part, Image) for part in ctx.parts)
    return Ticket(photos=photos, findings=sorted(findings, key=lambda found: found.department))


# Who reads


@attrs.define
class Front:
    """Serves customers, and knows what each tenant has cost."""

    orchestrator: Orchestrator
    costs: defaultdict[str, Decimal] = attrs.Factory(lambda: defaultdict(Decimal))

    async def serve(self, tenant_id: str, message: str | Sequence[Part]) -> Ticket:
        """Answer one message, and show what happens meanwhile."""
        stream = self.orchestrator.process_stream(message, tenant_id, session_id="kettle")
        async with stream:
            async for event in stream:
                match event.type:
                    case EventType.APPROVAL_REQUIRED:
                        print(f"  may we {event.data['tool_name']}? Yes.")
                        stream.approve(event.data["call_id"])
                    case EventType.TOOL_PROGRESS:
                        print(f"  photo: {event.data['progress']}")
                    case EventType.TOOL_CALL_END:
                        print(f"  {event.data['tool_name']}: {event.data['outcome']}")
                    case EventType.DONE:
                        self.count(tenant_id, event)
            ticket: Ticket = await stream.result()
        return ticket

    def count(self, tenant_id: str, done: AgentEvent) -> None:
        """Add what a run has cost, also one that was cancelled."""
        self.costs[tenant_id] += Decimal(done.data["usage"]["cost"] or 0)

    async def serve_until_they_hang_up(self, tenant_id: str, message: str) -> str:
        """Answer, until a thread, such as a telephone's, says that nobody listens."""
        async with self.orchestrator.process_stream(message, tenant_id) as stream:
            phone = threading.Timer(0.1, stream.cancel, ["they hung up"])
            phone.start()
            last = [event async for event in stream][-1]
        phone.join()
        self.count(tenant_id, last)
        return f"{last.data['status']}: {last.data['reason']}"


async def main() -> None:
    """Serve two tenants, one of whom hangs up."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "desk.db"
        desk = Desk(orders={"77": "a kettle, 40 euros"})
        orchestrator = Orchestrator(
            agents=[triage],
            app=desk,
            limits=Limits(run=60, tokens=100_000),
            prices=PRICES,
            store=SQLiteStore(file),
            conversations=SQLiteConversations(file),
        )
        # That a tool is tried again is a line in the log; here it would stand between the others.
        logging.getLogger("flowtrio").setLevel(logging.ERROR)
        async with orchestrator:
            front = Front(orchestrator)
            photo = Image(data=PHOTO, name="kettle.png")
            ticket = await front.serve("acme", [Text("My kettle rattles. Order 77."), photo])
            print(f"{ticket.photos} photo;", [found.advice for found in ticket.findings])
            print(await front.serve_until_they_hang_up("globex", "Mine does, too."))
            print("refunds:", list(desk.refunds.values()))
            print("cost:", {tenant: str(cost) for tenant, cost in front.costs.items()})


if __name__ == "__main__":
    trio.run(main)
