"""One program, played and judged."""

from __future__ import annotations

import functools
from typing import Any

from .judge import problems_of, problems_of_innocent
from .programs import Program
from .world import play


def try_out(program: Program, *, threads: bool = False) -> list[str]:
    """Play a program; give every break of a law as a sentence that begins with its name."""
    world = play(program, threads=threads)
    problems = list(world.problems)
    if world.is_broken:
        # The process, or the loop, is gone: what else is wrong follows from that.
        return [p for p in problems if p.startswith(_BREAKS)] or problems
    for record in world.records():
        problems += [f"{problem} [{record['name']}]" for problem in problems_of(record)]
    return problems + problems_of_innocent(world.innocent, _expected())


@functools.cache
def _expected() -> Any:
    return play(Program()).innocent


_BREAKS = ("L12 TrioInternalError", "L12 waits", "L12 turns", "L12 trio.run", "L12 Keyboard")
