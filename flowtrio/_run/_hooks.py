"""What stands around tools and models: functions of the application's, outermost first.

What such a function does itself has around it what stands around the function: not the function
again, which would ask for ever, nor what is inside of it; but all that is outside of it, or a
guardrail of the engine's would not hold for what an agent's hook asks and calls.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

if TYPE_CHECKING:
    from flowtrio.abc import AroundAgent, AroundModel, AroundTool

_H = TypeVar("_H")


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
    """The functions around the tools, the models and the agents of a frame."""

    tool: tuple[AroundTool, ...] = ()
    model: tuple[AroundModel, ...] = ()
    agent: AroundAgent | None = None
    _of_the_run: Hooks | None = None

    @property
    def of_the_run(self) -> Hooks:
        """Those that stand around other agents of the run too."""
        return self if self._of_the_run is None else self._of_the_run

    def joined_by(self, tool: AroundTool | None, model: AroundModel | None) -> Hooks:
        """The run's, and inside them more of the run's."""
        if tool is None and model is None:
            return self
        return attrs.evolve(
            self, tool=(*self.tool, *_given(tool)), model=(*self.model, *_given(model))
        )

    def inside(self, tool: AroundTool | None, model: AroundModel | None) -> Hooks:
        """The run's, and inside them an agent's own."""
        run = self.of_the_run
        if tool is None and model is None:
            return run
        return attrs.evolve(run.joined_by(tool, model), of_the_run=run)

    def outer(self, *, tools: int | None = None, models: int | None = None) -> Hooks:
        """The first so many of each kind; None for all."""
        run = self._of_the_run
        return Hooks(
            self.tool[:tools],
            self.model[:models],
            self.agent,
            None if run is None else run.outer(tools=tools, models=models),
        )


def _given(hook: _H | None) -> tuple[_H, ...]:
    return () if hook is None else (hook,)


NO_HOOKS = Hooks()
