"""OpenRouter's ``reasoning_details``: blocks of what a model thought, in fragments.

They go back with the next request, and as what the model's provider gave: a signature belongs to
the text that came in pieces before it, and the provider refuses it behind anything else. So the
fragments of a block become one again.
"""

from __future__ import annotations

from typing import Any

_GROWING = ("text", "summary", "data")
"""What of a block comes in pieces; anything else is told once."""

_SAME = ("type", "index", "id")


class ReasoningDetails:
    """Puts the fragments of blocks together, in the order in which the blocks began."""

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._blocks)

    def add(self, fragments: list[dict[str, Any]]) -> None:
        """Take what came in one event."""
        # What stands beside each other in one event and bears no number are blocks of their own.
        before = len(self._blocks)
        for fragment in fragments:
            block = self._block_of(fragment, before)
            if block is None:
                self._blocks.append(dict(fragment))
            else:
                _grow(block, fragment)

    def finish(self) -> list[dict[str, Any]]:
        """The blocks as they are now."""
        return [dict(block) for block in self._blocks]

    def _block_of(self, fragment: dict[str, Any], before: int) -> dict[str, Any] | None:
        is_counted = fragment.get("index") is not None
        blocks = self._blocks if is_counted else self._blocks[before - 1 : before]
        for block in reversed(blocks):
            if _is_of(fragment, block):
                return None if _is_whole(block, fragment) else block
        return None


def _is_of(fragment: dict[str, Any], block: dict[str, Any]) -> bool:
    """Whether nothing tells *fragment* from *block*; of the id alone, either may say nothing."""
    for key in _SAME:
        one, other = fragment.get(key), block.get(key)
        if one != other and (key != "id" or (one is not None and other is not None)):
            return False
    return True


def _is_whole(block: dict[str, Any], fragment: dict[str, Any]) -> bool:
    """Whether *block* was signed, or sealed, before *fragment*, which therefore begins another."""
    if fragment.get("index") is None and fragment.get("data"):
        return True
    return bool(block.get("signature")) and any(fragment.get(key) for key in _GROWING)


def _grow(block: dict[str, Any], fragment: dict[str, Any]) -> None:
    for key, value in fragment.items():
        begun = block.get(key)
        if key in _GROWING and isinstance(begun, str) and isinstance(value, str):
            # Told again whole, sealed data is the same and not more of it.
            block[key] = begun if key == "data" and begun == value else begun + value
        elif begun is None:
            block[key] = value
