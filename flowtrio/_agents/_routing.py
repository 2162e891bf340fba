"""Which of several agents answers a message: the model chooses, or the application does."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from flowtrio._core._transcript import Reply
from flowtrio._core._values import told
from flowtrio._run._body import agent_name, check_agent

from ._agent import Agent
from ._model import Turn

if TYPE_CHECKING:
    from flowtrio.abc import AgentLike, LLMClient

    from ._context import RunContext
    from ._toolsets import Given

Route: TypeAlias = "Callable[[str, RunContext], AgentLike | str | Awaitable[AgentLike | str]]"
"""``route(message, context)``: gives the agent that answers, or its name; may be async."""
_TOOL = "choose_agent"


def make_agent(
    agents: Sequence[AgentLike] | None,
    route: Route | None,
    llm_client: LLMClient | None,
    tools: Sequence[Given],
) -> AgentLike:
    """The one agent that answers for an `Orchestrator`, which may choose between others."""
    if agents is None:
        if llm_client is None:
            raise ValueError("Orchestrator(): expected llm_client=... or agents=[...]")
        return Agent(llm_client=llm_client, tools=tools)
    checked = [check_agent(agent) for agent in agents]
    if not checked:
        raise ValueError("Orchestrator(agents=[]): expected at least one agent")
    if tools:
        raise ValueError("Orchestrator(agents=..., tools=...): the tools belong to the agents")
    if len(checked) == 1 and route is None:
        [only] = checked
        return only
    by_name = {agent_name(agent): agent for agent in checked}
    if len(by_name) < len(checked):
        raise ValueError("Orchestrator(agents=...): each agent needs a name of its own")
    if route is None and llm_client is None:
        raise ValueError("Orchestrator(agents=...): expected route=... or llm_client=... to choose")
    return _Routed(by_name, route, llm_client)


@attrs.frozen(eq=False)
class _Routed:
    """Chooses one of several agents, and is that agent for the run."""

    agents: dict[str, AgentLike]
    route: Route | None
    llm_client: LLMClient | None
    name: str = "orchestrator"

    async def __call__(self, ctx: RunContext, message: str) -> Any:
        if self.route is None:
            assert self.llm_client is not None
            name = await choose_agent(ctx, self.llm_client, self.agents)
        else:
            name = await self._ask_route(message, ctx)
        await ctx.status(f"agent: {name}")
        return await self.agents[name](ctx, message)

    async def _ask_route(self, message: str, ctx: RunContext) -> str:
        assert self.route is not None
        chosen = self.route(message, ctx)
        if inspect.isawaitable(chosen):
            chosen = await chosen
        for name, agent in self.agents.items():
            if chosen is agent or chosen == name:
                return name
        raise ValueError(
            f"route gave {chosen!r}: expected one of the agents or of the names "
            f"{', '.join(self.agents)}"
        )


async def choose_agent(ctx: RunContext, client: LLMClient, agents: Mapping[str, AgentLike]) -> str:
    """Ask *client* which of *agents* should answer; the first of them where it does not say."""
    frame = ctx._frame
    reply = Reply(frame.run.log.opened.new_id("m"))
    # What it says was heard, and is in the conversation; its call is none of the agent's tools.
    frame.transcript.expect(Reply(reply.message_id))
    turn = Turn(frame, client, reply, writes_calls=False)
    instructions = "\n".join(
        [
            f"Choose who answers the user's message, by calling {_TOOL} once. There are:",
            *(f"- {name}: {purpose_of(agent)}" for name, agent in agents.items()),
        ]
    )
    conversation = [{"role": "system", "content": instructions}, *ctx.messages]
    completion, _ = await turn.run_turn(conversation, [_spec(list(agents))], {})
    for call in completion.tool_calls:
        chosen = (call.arguments or {}).get("agent")
        if call.name == _TOOL and isinstance(chosen, str) and chosen in agents:
            return chosen
    # A model that cannot call tools says it in words.
    named = [name for name in agents if name.casefold() in completion.content.casefold()]
    return named[0] if len(named) == 1 else next(iter(agents))


def agents_by_name(agent: AgentLike) -> dict[str, AgentLike]:
    """Who can be asked for by name: *agent*, and those between which it chooses."""
    inner = agent.agents if isinstance(agent, _Routed) else {}
    return {agent_name(agent): agent, **inner}


def find_agent(agents: Mapping[str, AgentLike], name: str) -> AgentLike:
    """The one of *agents* that is asked for by *name*.

    Raises:
      ValueError: there is none.

    """
    if name not in agents:
        raise ValueError(f"agent={told(name)}: expected one of {', '.join(agents)}")
    return agents[name]


def purpose_of(agent: AgentLike) -> str:
    """What an agent is for: its instructions, or its docstring."""
    text = agent.instructions if isinstance(agent, Agent) else agent.__doc__
    if not isinstance(text, str | None):
        text = text.__doc__
    return " ".join((text or "no description").split())[:500]


def _spec(names: list[str]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "Choose the agent that answers the user's message.",
            "parameters": {
                "type": "object",
                "properties": {"agent": {"type": "string", "enum": names}},
                "required": ["agent"],
                "additionalProperties": False,
            },
        },
    }
