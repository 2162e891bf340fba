"""What is served while processes are killed: it says words, asks, and leaves a mark of each try."""

from __future__ import annotations

import os
import random

import trio

from flowtrio import RunContext


def mark(text: str) -> None:
    """Write a line that outlasts a kill, in one step."""
    file = os.open(os.environ["CHAOS_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{text}\n".encode())
    os.close(file)


async def agent(ctx: RunContext, message: str) -> str:
    """Do what the message says: ``<name> words=7 approve ask``."""
    mark(f"{ctx.run_id} began")
    options = message.split()[1:]
    words = int(options[0].removeprefix("words="))
    async with ctx.message() as out:
        for number in range(words):
            await trio.sleep(random.random() * 0.2)
            await out.write(f"{number} ")
    if {"approve", "deny", "contest"} & {*options}:
        if not await ctx.approve("go on", {}):
            return "denied"
        mark(f"{ctx.run_id} called")
    if "ask" not in options:
        return "fine"
    heard = await ctx.ask("where?")
    mark(f"{ctx.run_id} heard {heard}")
    return heard
