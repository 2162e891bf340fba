"""What is given to a client beyond its named arguments: keys of its requests, by known names.

A misspelt option would be sent, and most hosts say nothing to it: the answer is another one than
was asked for. So only what the protocol's codec lists is taken; what a host has besides goes into
``extra_body``, and is sent as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from flowtrio._core._values import told, type_name

_EVERYWHERE = frozenset({"output_schema", "stream", "tools"})
"""What every client takes."""


def check_options(client: str, options: Iterable[str], known: frozenset[str] | None) -> None:
    """Refuse options that the protocol does not have, by a `TypeError` with the nearest one."""
    if known is None:
        return
    taken = known | _EVERYWHERE
    for name in options:
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1)
            hint = f"did you mean {near[0]}=? " if near else ""
            raise TypeError(
                f"{client}: unknown option {told(name)}; {hint}"
                "What the host takes besides goes into extra_body={...}"
            )


def check_extra_body(client: str, extra_body: object) -> dict[str, Any]:
    """Refuse what is no mapping of keys, by a `TypeError`."""
    if extra_body is None:
        return {}
    if not isinstance(extra_body, Mapping) or not all(isinstance(key, str) for key in extra_body):
        raise TypeError(f"{client}(extra_body=...): expected a dict, got {type_name(extra_body)}")
    return dict(extra_body)


def with_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body with further keys; an object joins one that is there."""
    merged = dict(body)
    for key, value in extra.items():
        there = merged.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        merged[key] = {**there, **value} if both else value  # type: ignore[dict-item]
    return merged
