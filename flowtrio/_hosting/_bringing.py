"""What a message brings beside itself: one that is said to a run brings that run nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowtrio._agents._client_tool import client_tools_of
from flowtrio._agents._given import ForRun

if TYPE_CHECKING:
    from flowtrio._core._limits import Limits
    from flowtrio._run._info import RunInfo
    from flowtrio.abc import RunOptions


def has_all_of(before: RunInfo, said: RunInfo, limits: Limits, app: Any) -> bool:
    """Whether the run *before* has what the message of *said* brings beside itself.

    Args:
      before: The run that goes on.
      said: The message's own.
      limits: Those of runs that bring none.
      app: What runs have that bring none.

    """
    brought, had = _given(said), _given(before)
    return (
        (not brought.tools or _is_same(_told(brought.tools), _told(had.tools)))
        and (not brought.model_settings or brought.model_settings == had.model_settings)
        and said.limits in (limits, before.limits)
        and (said.app is app or _is_same(said.app, before.app))
    )


def brings_nothing(asked: RunOptions | None) -> bool:
    """Whether a message brings nothing but itself; what runs elsewhere have is not known here."""
    if asked is None:
        return True
    return not (asked.client_tools or asked.model_settings or asked.limits) and asked.app is None


def _given(info: RunInfo) -> ForRun:
    return info.given if isinstance(info.given, ForRun) else ForRun()


def _told(tools: tuple[Any, ...]) -> list[object]:
    """Tools, as those are alike that are run by the other side and were made of the same schema."""
    return [client_tools_of([tool]) or tool for tool in tools]


def _is_same(one: object, other: object) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:
        # An application's own comparison, or an array's.
        return False
