"""The model chooses which of several agents answers a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowtrio._core._transcript import Reply

from ._agent import Agent
from ._model import Turn

if TYPE_CHECKING:
    from flowtrio.abc import AgentLike, LLMClient

    from ._context import RunContext

_TOOL = "choose_agent"


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
            *(f"- {name}: {_purpose(agent)}" for name, agent in agents.items()),
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


def _purpose(agent: AgentLike) -> str:
    text = agent.instructions if isinstance(agent, Agent) else agent.__doc__
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
