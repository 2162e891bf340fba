"""What a store does without ever waiting, and so needs neither a deadline nor a shield."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def find_nowait(store: object, name: str) -> Callable[..., Any] | None:
    """The plain function that does what the coroutine function *name* of a store does, if any."""
    for kind in type(store).__mro__:
        # A class that has only the coroutine function of its own means that one.
        if f"{name}_nowait" in vars(kind) or name in vars(kind):
            found = vars(kind).get(f"{name}_nowait")
            bound: Callable[..., Any] | None = None if found is None else found.__get__(store)
            return bound
    return None
