"""Changes of a state as AG-UI takes them: JSON Patch by RFC 6902.

A client gives up on an event that is none, and with it on the run.
"""

from __future__ import annotations

import re
from typing import Any, Final

_NEEDS: Final = {
    "add": "value",
    "remove": None,
    "replace": "value",
    "move": "from",
    "copy": "from",
    "test": "value",
}
"""What each operation has beside its path."""
_POINTER: Final = re.compile(r"(/([^/~]|~[01])*)*")
"""A JSON Pointer by RFC 6901."""


def is_patch(value: Any) -> bool:
    """Whether *value* is a list of operations."""
    return isinstance(value, list) and all(map(_is_operation, value))


def _is_operation(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("op") not in _NEEDS:
        return False
    needs = _NEEDS[value["op"]]
    if needs is not None and needs not in value:
        return False
    places = [value.get("path"), *([value["from"]] if needs == "from" else [])]
    return all(isinstance(place, str) and _POINTER.fullmatch(place) for place in places)
