"""``--protocols``: which of other people's protocols the HTTP address speaks, and where."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowtrio.serving.http._protocol import HTTPProtocol

PROTOCOLS: Final = {
    "openai": ("OpenAIProtocol", "/v1"),
    "ag-ui": ("AGUIProtocol", "/ag-ui"),
    "ai-sdk": ("AISDKProtocol", "/ai-sdk/chat"),
    "durable-streams": ("DurableStreamsProtocol", "/streams/RUN"),
}
"""Each protocol's class, and the address that its clients are given."""


def names_of(text: str) -> tuple[str, ...]:
    """Names with commas between them; ``none`` for none."""
    names = tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    names = () if names == ("none",) else names
    if strange := [name for name in names if name not in PROTOCOLS]:
        known = ", ".join([*PROTOCOLS, "none"])
        raise argparse.ArgumentTypeError(f"unknown {', '.join(strange)}; expected {known}")
    return names


def make_protocols(names: tuple[str, ...]) -> list[HTTPProtocol]:
    """The protocols of these names, as they are by default."""
    from flowtrio import protocols

    return [getattr(protocols, PROTOCOLS[name][0])() for name in names]


def lines_of(url: str, names: tuple[str, ...]) -> list[str]:
    """A line for each, with its address below *url*."""
    return [f"{url}{PROTOCOLS[name][1]} ({name})" for name in names]
