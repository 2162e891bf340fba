"""Where public names say they live."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Iterable
from typing import Any


def publish(module: str, values: Iterable[Any]) -> None:
    """Let what a package re-exports say that it is the package's own.

    So tracebacks and documents name the door that users came through: ``flowtrio.AgentEvent``.
    """
    for value in values:
        home = getattr(value, "__module__", None)
        is_ours = isinstance(home, str) and home.startswith("flowtrio.")
        if is_ours and hasattr(value, "__qualname__"):
            if inspect.isclass(value):
                _resolve_annotations(value)
            value.__module__ = module


def _resolve_annotations(cls: type) -> None:
    """Replace a class's annotations, which are text, by what they mean.

    Whoever resolves them later (msgspec, attrs, `typing.get_type_hints`) looks in the module that
    the class names, which is about to be another one.
    """
    own = inspect.get_annotations(cls)
    # Names that only type checkers import cannot be resolved by anybody, here or later.
    with contextlib.suppress(NameError):
        hints = typing.get_type_hints(cls, include_extras=True)
        cls.__annotations__ = {name: hints[name] for name in own}
