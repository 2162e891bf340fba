"""Clients that leave, and what has to end with them."""

from __future__ import annotations

import trio

from flowtrio import RunContext


class Endless:
    """An agent that says one word and goes on until it is cancelled; it notes when that was."""

    name = "endless"

    def __init__(self) -> None:
        self.begun = 0
        self.ended = trio.Event()
        self.ended_at = 0.0

    async def __call__(self, ctx: RunContext, message: str) -> str:
        self.begun += 1
        try:
            async with ctx.message() as out:
                await out.write("one")
                await trio.sleep_forever()
        finally:
            self.ended_at = trio.current_time()
            self.ended.set()
        return message

    async def wait_begun(self) -> None:
        """Wait until a run of it goes on."""
        with trio.fail_after(60):
            while not self.begun:
                await trio.sleep(0.01)


async def check_ends_within_a_second(agent: Endless, left_at: float, window: float = 0) -> None:
    """Its run ends a second after its client left, or after its resume window, at most.

    Args:
      agent: Whose run it is.
      left_at: When the client left.
      window: Seconds in which it may come back.

    """
    with trio.fail_after(window + 60):
        await agent.ended.wait()

    assert agent.ended_at - left_at <= window + 1
