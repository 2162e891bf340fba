"""Planted bugs that only hostile programs meet (L12), each noticed by the same judge."""

from __future__ import annotations

import faulthandler
from typing import Any

import pytest
import trio

from flowtrio._agents._written import _WrittenCall
from flowtrio._run import _log
from flowtrio._run._log import EventLog
from tests.proof.bugs import Bug

from .programs import draw
from .test_hostile import SECONDS
from .trial import try_out

SEEDS_TO_CATCH = 600


def asks_who_speaks_before_it_waits_and_not_after(right: Any) -> Any:
    async def take_credit(log: EventLog, by: Any) -> bool:
        if by.is_closed:
            return bool(await right(log, by))
        channel = log.channel
        if channel.credits > 0 and not channel.emitters:
            channel.credits -= 1
            return True
        return bool(await channel.wait_for_credit(by)) and not log.is_closing

    return take_credit


def takes_another_call_for_the_one_that_was_written(right: Any) -> Any:
    return lambda written, call: True


def opens_messages_without_asking_for_room(right: Any) -> Any:
    async def wait_for_room(log: EventLog, by: Any) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return not by.is_closed

    return wait_for_room


def trusts_any_clock(right: Any) -> Any:
    return lambda wall_clock: float(wall_clock())


BUGS = [
    Bug("L12", EventLog, "_take_credit", asks_who_speaks_before_it_waits_and_not_after),
    Bug("L12", _WrittenCall, "becomes", takes_another_call_for_the_one_that_was_written),
    Bug("L6", EventLog, "wait_for_room", opens_messages_without_asking_for_room),
    Bug("L12", _log, "_read", trusts_any_clock),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_bug_that_lets_one_run_harm_others_is_noticed(bug: Bug) -> None:
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    with bug.planted():
        caught = next((seed for seed in range(SEEDS_TO_CATCH) if try_out(draw(seed))), None)
    faulthandler.cancel_dump_traceback_later()

    assert caught is not None
    # And it was the bug: without it the same program is lawful.
    assert try_out(draw(caught)) == []
