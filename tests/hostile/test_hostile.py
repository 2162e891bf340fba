"""Random hostile programs keep every law, and end nobody but themselves."""

from __future__ import annotations

import faulthandler

import pytest

from .programs import draw, draw_with_threads
from .trial import try_out

PROGRAMS, CHUNK = 3000, 100
WITH_THREADS, CHUNK_WITH_THREADS = 500, 25
SECONDS = 60
"""Real time for one program; what takes longer is dumped, and ends the process."""


@pytest.mark.parametrize("first", range(0, PROGRAMS, CHUNK))
def test_hostile_programs_break_no_law(first: int) -> None:
    problems = []
    for seed in range(first, first + CHUNK):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        program = draw(seed)
        problems += [f"seed {seed}: {problem}\n{program}" for problem in try_out(program)]
    faulthandler.cancel_dump_traceback_later()

    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("first", range(0, WITH_THREADS, CHUNK_WITH_THREADS))
def test_hostile_programs_break_no_law_under_the_real_clock(first: int) -> None:
    problems = []
    for seed in range(first, first + CHUNK_WITH_THREADS):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        program = draw_with_threads(seed)
        found = try_out(program, threads=True)
        problems += [f"seed {seed}: {problem}\n{program}" for problem in found]
    faulthandler.cancel_dump_traceback_later()

    assert not problems, "\n".join(problems)
