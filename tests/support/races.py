"""A newcomer's agent with a race, as the guide shows it, and the test that finds it."""

from __future__ import annotations

from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "testing.md"


def program(marker: str) -> str:
    """The block of the guide that begins with a comment ``# marker``."""
    blocks = GUIDE.read_text("utf-8").split("```")
    [found] = [block for block in blocks if block.startswith(f"python\n# {marker}\n")]
    return found.removeprefix("python\n")


RACE = program("test_shop.py")
