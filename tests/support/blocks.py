"""Running examples as they stand in documents: ``await`` and ``async for`` outside any function."""

from __future__ import annotations

import ast
import inspect
from typing import Any


async def run_block(source: str, namespace: dict[str, Any]) -> None:
    """Execute *source* in *namespace*, in the task that calls."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, "<example>", "exec", flags=flags, dont_inherit=True)
    coroutine = eval(code, namespace)
    if inspect.iscoroutine(coroutine):
        await coroutine
