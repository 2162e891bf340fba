"""What a model is asked, as whoever stands around it sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class ModelRequest:
    """One request to a model. Frozen; `replace` makes another one."""

    messages: Sequence[Mapping[str, Any]]
    """The conversation, instructions included, in OpenAI's shape."""
    tools: Sequence[Any] = ()
    """The tools that are offered, as `flowtrio.abc.ToolSpec`; tools and functions may be added.
    A call is run by the agent's own tool of its name, offered or not."""
    model_settings: Mapping[str, Any] = attrs.Factory(dict)
    """Options that are handed to the client: ``temperature``, ``max_tokens``, …"""

    def replace(self, **changes: Any) -> ModelRequest:
        """The same request with some attributes changed."""
        return attrs.evolve(self, **changes)
