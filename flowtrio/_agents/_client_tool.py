"""Tools that the other side runs: whoever reads the run does the work and answers with the result.

A call of one asks, under the call's own id, for any JSON; the answer is what the call gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import attrs

from flowtrio._core._exceptions import InputDeclined, ToolDenied

from ._answers import AnswerForm
from ._context import RunContext
from ._tools import Tool

if TYPE_CHECKING:
    from flowtrio.abc import ToolSpec

_asking: Final[WeakSet[Any]] = WeakSet()
"""The functions of such tools."""
_RESULT: dict[str, Any] = {"description": "The result of the call: any JSON."}


def asks_for_result(data: Mapping[str, Any]) -> bool:
    """Whether an INPUT_REQUIRED of this data asks the other side to run such a tool."""
    return data["call_id"] is not None and data["schema"] == _RESULT


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
    result = attrs.evolve(AnswerForm.of(_RESULT), is_for_programs=True)

    async def ask(ctx: RunContext, arguments: dict[str, Any]) -> Any:
        try:
            return await ctx.ask(f"Result of {name}", result)
        except InputDeclined as exc:
            raise ToolDenied(exc.reason or "the other side declined to run it") from exc

    _asking.add(ask)
    return Tool.from_schema(ask, name=name, description=description, parameters=parameters)


def client_tools_of(tools: Sequence[Any]) -> list[ToolSpec] | None:
    """Such tools as JSON, of which `made_again` makes them; None where others are among them."""
    if not all(isinstance(tool, Tool) and tool.fn in _asking for tool in tools):
        return None
    return [tool.spec() for tool in tools]


def made_again(specs: Sequence[ToolSpec]) -> list[Tool[..., Any]]:
    """Make the tools that `client_tools_of` has told."""
    return [ClientTool(**spec["function"]) for spec in specs]
