"""Running examples as they stand in documents: ``await`` and ``async for`` outside any function."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def marked_block(guide: str, mark: str) -> str:
    """The source of a guide's block that stands behind a line ``<!-- mark -->``."""
    text = (GUIDES / f"{guide}.md").read_text("utf-8")
    _, found, rest = text.partition(f"<!-- {mark} -->\n```python\n")
    assert found, f"{guide}.md has no block marked {mark!r}"
    return rest.partition("```")[0]


async def run_block(source: str, namespace: dict[str, Any]) -> None:
    """Execute *source* in *namespace*, in the task that calls."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, "<example>", "exec", flags=flags, dont_inherit=True)
    coroutine = eval(code, namespace)
    if inspect.iscoroutine(coroutine):
        await coroutine
