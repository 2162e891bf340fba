"""Bodies: anything that can be run as an agent, and what it gives.

A run hosts a body and knows no more of it than this: it is called with a context and a message,
what it gives is awaited, and that has to be JSON.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from flowtrio._core._parts import told_result
from flowtrio._core._values import clean_text, type_name

if TYPE_CHECKING:
    from flowtrio.abc import AgentLike

    from ._frame import Frame


def agent_name(agent: Any) -> str:
    """The name of an agent in events: its ``name``, or that of the function."""
    name = getattr(agent, "name", None) or getattr(agent, "__name__", None)
    return clean_text(str.__str__(name)) if isinstance(name, str) and name else type_name(agent)


def check_agent(agent: AgentLike) -> AgentLike:
    """Refuse what cannot be run, with a message that says what can.

    Raises:
      TypeError: *agent* is no callable.

    """
    if isinstance(agent, type) or not callable(agent):
        raise TypeError(
            f"can't run {agent!r} as an agent: expected flowtrio.Agent(llm_client=...) or an "
            "async def agent(ctx, message)"
        )
    return agent


def ask_agent(frame: Frame, agent: AgentLike, message: str) -> Awaitable[Any]:
    """Call an agent's body in *frame*, inside what stands around it."""
    ctx, around = frame.make_context(frame), frame.hooks.agent
    if around is None:
        return as_awaitable(agent(ctx, message))
    return around(ctx, lambda: as_awaitable(agent(ctx, message)))


def as_awaitable(value: Any) -> Awaitable[Any]:
    """What an agent gave when it was called, if that can be awaited.

    Raises:
      TypeError: it was a plain function.

    """
    if type(value) is not CoroutineType and not inspect.isawaitable(value):
        raise TypeError(
            f"the agent gave {type(value).__name__}: expected an async def agent(ctx, message)"
        )
    return value


def encode_result(value: Any, limit_bytes: float) -> Any:
    """Turn what a tool or an agent returned into plain JSON values; see `told_result`."""
    return told_result(value, limit_bytes)
