"""What stands around tools and models: functions of the application's, outermost first."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from flowtrio.abc import AroundModel, AroundTool


def check_hook(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse what cannot be awaited around a call."""
    is_kind = isinstance(value, type) or inspect.isasyncgenfunction(value)
    if value is not None and (is_kind or not callable(value)):
        raise TypeError(
            f"{type(instance).__name__}({attribute.name}={type(value).__name__}): expected an "
            f"async def of the context, what is asked, and proceed"
        )


@attrs.frozen
class Hooks:
    """The functions around the tools and the models of a frame."""

    tool: tuple[AroundTool, ...] = ()
    model: tuple[AroundModel, ...] = ()

    def inside(self, tool: AroundTool | None, model: AroundModel | None) -> Hooks:
        """These, and inside them those that are given."""
        if tool is None and model is None:
            return self
        return Hooks(
            self.tool if tool is None else (*self.tool, tool),
            self.model if model is None else (*self.model, model),
        )


NO_HOOKS = Hooks()
