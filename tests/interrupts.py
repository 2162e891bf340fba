"""``python -m tests.interrupts --trials 1000``: Ctrl-C at random moments, flowtrio beside Trio.

Each trial is a process of its own that keeps starting runs, in every form there is. A real SIGINT
strikes it within its first milliseconds, wherever it is then, and what it should end by is one bare
`KeyboardInterrupt`. A program of nothing but nurseries and channels gets as many, since Python and
Trio have their share of what can go wrong: an interrupt in a ``__del__`` is lost, one between the
opening of a nursery and its block upsets Trio's own books.

The processes are forks of one that has imported everything.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from random import Random
from typing import Any

import attrs
import trio

from flowtrio import Agent, Chunk, Orchestrator, RunContext, StreamEngine, ToolCall, tool

WITHIN = 0.04
"""Seconds within which the signal comes, from when the program says that it is running."""
LASTS = 2.0
"""Seconds after which a program ends that has heard of no signal."""
PATIENCE = 20.0
"""Seconds after which one hangs."""
MOST_UNCLEAN = 0.02
"""Of our programs, that end by something else."""

CLEAN, GROUP, INTERNAL, OTHER, SWALLOWED, HANGS = (
    *("clean", "in a group", "internal error", "another exception", "swallowed", "hangs"),
)
_STATUSES = {CLEAN: 130, GROUP: 3, INTERNAL: 4, OTHER: 5, SWALLOWED: 0}
_OUTCOMES = {status: outcome for outcome, status in _STATUSES.items()}

Program = Callable[[], Awaitable[None]]
"""One round of what a process does again and again."""


# The programs


@tool
async def pass_time(ticks: int = 2) -> int:
    """Pass some checkpoints."""
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    return ticks


class Talker:
    """A model that calls two tools, and says a few words once it has their results."""

    async def stream_completion(
        self, messages: Any, tools: Any = None, **options: Any
    ) -> AsyncIterator[Chunk]:
        """Call, or answer."""
        await trio.lowlevel.checkpoint()
        if messages[-1]["role"] == "user":
            calls = [ToolCall(f"c{n}", "pass_time", {"ticks": n}) for n in (1, 3)]
            yield Chunk(is_final=True, tool_calls=calls, finish_reason="tool_calls")
            return
        for word in ("some ", "few ", "words"):
            yield Chunk(content=word)
        yield Chunk(is_final=True, finish_reason="stop")


async def speaker(ctx: RunContext, message: str) -> str:
    """A custom agent: the shortest runs there are."""
    async with ctx.message() as out:
        await out.write(message)
    return message


async def caller(ctx: RunContext, message: str) -> Any:
    """A custom agent that has others do the work."""
    await ctx.call(pass_time, ticks=1)
    return await ctx.delegate(AGENT, message)


AGENT = Agent(llm_client=Talker(), tools=[pass_time])
AGENTS: tuple[Any, ...] = (AGENT, speaker, caller)


async def ours() -> None:
    """Start runs in a block, bare, in an engine, of an orchestrator, and hosted."""
    orchestrator = Orchestrator(agents=[AGENT])
    for agent in AGENTS:
        async with StreamEngine().stream(agent, "go") as stream:
            async for _ in stream:
                pass
        async with aclosing(StreamEngine().stream(agent, "go")) as bare:
            async for _ in bare:
                pass
        async with StreamEngine() as engine:
            async for _ in engine.stream(agent, "go"):
                break
    async with orchestrator:
        async for _ in orchestrator.process_stream("go", session_id="s"):
            pass
        run_id = await orchestrator.start("go")
        async with orchestrator.attach(run_id) as follower:
            async for _ in follower:
                pass


async def plain() -> None:
    """Open nurseries with a channel in them, as often as the other program does."""
    for _ in AGENTS:
        for _ in range(3):
            send, receive = trio.open_memory_channel[int](4)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_produce, send)
                nursery.start_soon(pass_time.fn, 2)
                async for _ in receive:
                    pass


async def _produce(send: trio.MemorySendChannel[int]) -> None:
    async with send, trio.open_nursery() as nursery:
        nursery.start_soon(pass_time.fn, 1)
        for number in range(8):
            await send.send(number)


# A trial


@attrs.frozen
class Trial:
    """What became of one process."""

    outcome: str
    told: str
    """What it wrote to stderr."""


def strike(program: Program, moment: float, patience: float = PATIENCE) -> Trial:
    """Run *program* in a process, interrupt it *moment* seconds later, and see how it ends."""
    running, says = os.pipe()
    with tempfile.TemporaryFile() as stderr:
        with warnings.catch_warnings():
            # Threads of others are of no concern: the child uses none, and no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _be_struck(program, says, stderr.fileno())
        os.close(says)
        try:
            select.select([running], [], [], patience)
            time.sleep(moment)
            os.kill(child, signal.SIGINT)
            status = _wait(child, patience)
        finally:
            os.close(running)
        stderr.seek(0)
        told = stderr.read().decode(errors="replace")
    return Trial(HANGS if status is None else _OUTCOMES.get(status, OTHER), told)


def _wait(child: int, patience: float) -> int | None:
    """The exit status of a process; None for one that hangs, which is killed."""
    descriptor = os.pidfd_open(child)
    try:
        hangs = not select.select([descriptor], [], [], patience)[0]
    finally:
        os.close(descriptor)
    if hangs:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if hangs else status


def _be_struck(program: Program, says: int, stderr: int) -> None:
    """The child's whole life."""
    status = _STATUSES[OTHER]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(stderr, 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - as long as the process
        status = _STATUSES[_live(program, says)]
        sys.stderr.flush()
    finally:
        # Nothing of the parent's may run here: no test, no hook, no handler at exit.
        os._exit(status)


def _live(program: Program, says: int) -> str:
    try:
        trio.run(_repeat, program, says)
    except KeyboardInterrupt:
        return CLEAN
    except BaseException as exc:
        traceback.print_exc()
        return outcome_of(exc)
    return SWALLOWED


async def _repeat(program: Program, says: int) -> None:
    end = trio.current_time() + LASTS
    await program()
    os.write(says, b"!")
    while trio.current_time() < end:
        await program()


def outcome_of(exc: BaseException) -> str:
    """What a program that *exc* ended came to."""
    if isinstance(exc, trio.TrioInternalError):
        return INTERNAL
    if isinstance(exc, BaseExceptionGroup):
        _, rest = exc.split(KeyboardInterrupt)
        return OTHER if rest else GROUP
    return CLEAN if isinstance(exc, KeyboardInterrupt) else OTHER


def strike_many(program: Program, trials: int, seed: int = 0) -> list[Trial]:
    """So many trials, at moments that the seed gives."""
    trio.run(program)  # what is imported where it is first used is imported here, once
    moments = Random(seed)
    return [strike(program, moments.uniform(0, WITHIN)) for _ in range(trials)]


def main() -> int:
    """Strike both programs, tell what became of them, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.interrupts", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=2, help="tracebacks of each outcome")
    options = parser.parse_args()
    counts = [_tell(program, options) for program in (plain, ours)]
    # Plain Trio's own are told to compare; what is held to a limit is ours.
    return 1 if options.trials - counts[-1][CLEAN] > MOST_UNCLEAN * options.trials else 0


def _tell(program: Program, options: argparse.Namespace) -> Counter[str]:
    trials = strike_many(program, options.trials, options.seed)
    counted = Counter(trial.outcome for trial in trials)
    print(f"{program.__name__}: {dict(counted)}", flush=True)
    # Trio's nurseries give groups; a program that opens none of its own gets none of ours.
    for outcome in counted.keys() - {CLEAN, GROUP if program is plain else CLEAN}:
        for trial in [t for t in trials if t.outcome == outcome][: options.show]:
            print(f"--- {outcome}\n{trial.told}")
    return counted


if __name__ == "__main__":
    sys.exit(main())
