"""A server's question to the user, as a question of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from mcp_types import (
    INVALID_PARAMS,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
)

from flowtrio._agents._answers import AnswerForm
from flowtrio._core._exceptions import InputDeclined
from flowtrio._core._failures import words_of

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext

_Fields: TypeAlias = dict[str, str | int | float | bool | list[str] | None]
"""What the protocol has a form's fields be."""
Answer: TypeAlias = ElicitResult | ErrorData
CANCELLED = ElicitResult(action="cancel")
"""What a server hears where nobody answers."""


async def answer_of(ctx: RunContext, params: ElicitRequestParams) -> Answer:
    """Ask, and give what the user does: answer, decline, or neither in time.

    Nobody is asked what cannot be; the server hears why.
    """
    try:
        if isinstance(params, ElicitRequestFormParams):
            try:
                form = _form(params.requested_schema)
            except ValueError as exc:
                return ErrorData(code=INVALID_PARAMS, message=f"requestedSchema: {words_of(exc)}")
            fields = await ctx.ask(params.message, schema=form)
            return ElicitResult(action="accept", content=fields)
        # What is asked for at an address is entered there; here it is only agreed to.
        await ctx.ask(f"{params.message}\n{params.url}")
        return ElicitResult(action="accept")
    except InputDeclined:
        return ElicitResult(action="decline")
    except Exception:
        # Nobody answered within `Limits.input`, or the call was ended.
        return CANCELLED


def _form(schema: dict[str, Any]) -> AnswerForm:
    """What the user's answer has to be: what the server asks for, and what can be sent to it."""
    asked = AnswerForm.of(schema)

    def decode(value: Any) -> Any:
        _, fields = asked.read(value)
        return msgspec.convert(fields, _Fields)

    return AnswerForm(asked.schema, decode)
