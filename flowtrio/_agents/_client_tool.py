"""Tools that the other side runs: whoever reads the run does the work and answers with the result.

A call of one asks, under the call's own id, for any JSON; the answer is what the call gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowtrio._core._exceptions import InputDeclined, ToolDenied

from ._context import RunContext
from ._tools import Tool

_RESULT: dict[str, Any] = {"description": "The result of the call: any JSON."}


def ClientTool(name: str, description: str, parameters: Mapping[str, Any]) -> Tool[..., Any]:
    """Make a tool that is run by whoever reads the run, such as a browser or an editor.

    A call of it tells TOOL_CALL_START with the arguments, which are checked, then INPUT_REQUIRED
    with the same ``call_id``. ``answer`` gives its result; ``dismiss`` ends the call ``denied``,
    with its reason. If nobody answers within ``Limits.input``, it ends ``error``.

    Args:
      name: What it is called.
      description: What the model is told of it.
      parameters: JSON Schema of an object.

    Raises:
      ImportError: `jsonschema` is missing.
      ValueError: *parameters* is no such schema, or *name* or *description* no text.

    """

    async def ask(ctx: RunContext, arguments: dict[str, Any]) -> Any:
        try:
            return await ctx.ask(f"Result of {name}", _RESULT)
        except InputDeclined as exc:
            raise ToolDenied(exc.reason or "the other side declined to run it") from exc

    return Tool.from_schema(ask, name=name, description=description, parameters=parameters)
