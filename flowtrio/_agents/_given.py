"""What a run's root agent is given for this run alone: further tools, and settings of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from flowtrio._core._values import check_json, told

from ._toolsets import Given, tools_and_toolsets

if TYPE_CHECKING:
    from flowtrio._run._frame import Frame


@attrs.frozen
class ForRun:
    """Tools and settings of one run."""

    tools: tuple[Any, ...] = ()
    model_settings: dict[str, Any] = attrs.Factory(dict)


_NOTHING = ForRun()


def for_run(tools: Sequence[Given], model_settings: Mapping[str, Any] | None) -> ForRun | None:
    """Read what is given for a run; None if nothing is.

    Raises:
      TypeError: *tools* is no list of tools, or *model_settings* no mapping of names.
      ValueError: two tools have the same name.

    """
    if not tools and not model_settings:
        return None
    return ForRun(tools_and_toolsets(tools), read_settings(model_settings or {}))


def given_to(frame: Frame) -> ForRun:
    """What is given to an agent that is called in *frame*: something in the run's root alone."""
    given = frame.run.info.given
    is_root = frame.parent is None and frame.call_id is None
    return given if is_root and isinstance(given, ForRun) else _NOTHING


def read_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model as a mapping of our own.

    Raises:
      TypeError: it is no mapping of names to JSON values.

    """
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise TypeError(
            f"model_settings={told(given)}: expected a mapping such as {{'temperature': 0}}"
        )
    for key in ("tools", "output_schema", "messages"):
        if key in given:
            raise TypeError(f"model_settings: {key!r} is no setting: an agent has it elsewhere")
    settings: dict[str, Any] = check_json(dict(given), "model_settings")
    return settings


def settings_of_turn(settings: dict[str, Any], *, is_first: bool) -> dict[str, Any]:
    """The settings of one of an agent's turns.

    A call that is asked for by ``tool_choice`` is asked for once: a model that had to call a tool
    in each of its turns would never answer.
    """
    if is_first or settings.get("tool_choice") in (None, "auto", "none"):
        return settings
    return {key: value for key, value in settings.items() if key != "tool_choice"}
