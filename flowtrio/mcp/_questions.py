"""A server's question to the user, as a question of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext

CANCELLED = ElicitResult(action="cancel")
"""What a server hears where nobody answers."""


async def answer_of(ctx: RunContext, params: ElicitRequestParams) -> ElicitResult:
    """Ask, and give what the user does: answer, decline, or neither in time."""
    try:
        if isinstance(params, ElicitRequestFormParams):
            text = await ctx.ask(params.message)
            return ElicitResult(action="accept", content=_fields(text, params.requested_schema))
        # What is asked for at an address is entered there; here it is only agreed to.
        await ctx.ask(f"{params.message}\n{params.url}")
        return ElicitResult(action="accept")
    except Exception:
        # Nobody answered within `Limits.input`, or the call was ended.
        return CANCELLED


def _fields(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The answer's fields: a text alone is that of the only one."""
    match list(schema.get("properties", {}).items()):
        case [(name, {"type": "string"})]:
            return {name: text}
        case _:
            return msgspec.json.decode(text, type=dict[str, Any])
