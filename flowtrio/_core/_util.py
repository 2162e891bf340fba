"""Where public names say they live."""

from __future__ import annotations

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
            value.__module__ = module
