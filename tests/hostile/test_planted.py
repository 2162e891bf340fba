"""Planted bugs that only hostile programs meet (L12), each noticed by the same judge."""

from __future__ import annotations

import faulthandler
from typing import Any

import pytest
import trio

from flowtrio._agents import _calls
from flowtrio._agents._calls import ActiveCall
from flowtrio._agents._opened import Question
from flowtrio._agents._written import _WrittenCall
from flowtrio._core._transcript import Transcript
from flowtrio._run import _log, _telemetry
from flowtrio._run._inbox import Inbox
from flowtrio._run._log import EventLog
from flowtrio._run._telemetry import Observer
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


def says_yes_to_what_comes_too_late(right: Any) -> Any:
    def post(inbox: Inbox, said: Any, *, interrupt: bool) -> bool:
        right(inbox, said, interrupt=interrupt)
        return True

    return post


def hears_what_waits_twice(right: Any) -> Any:
    def hear(transcript: Transcript, said: Any) -> None:
        right(transcript, said)
        right(transcript, said)

    return hear


def forgets_what_waits_at_the_end(right: Any) -> Any:
    def hear_the_rest(inbox: Inbox, log: EventLog) -> None:
        inbox.is_closed = True

    return hear_the_rest


def runs_what_was_edited_as_it_was(right: Any) -> Any:
    def start_data(call: ActiveCall, arguments: dict[str, Any]) -> dict[str, Any]:
        assert call._plan is None or call._plan.keywords is not None
        plan = call._plan
        if plan is not None and plan.arguments.get("n", 0) > 5000:
            plan.keywords = {**plan.keywords, "n": 1}
        return dict(right(call, arguments))

    return start_data


def tells_what_a_hook_denied_as_an_error(right: Any) -> Any:
    def told(exc: BaseException) -> tuple[str, str]:
        return ("error", right(exc)[1] or "denied")

    return told


def forgets_that_a_question_was_declined(right: Any) -> Any:
    def told(question: Question) -> dict[str, Any]:
        found: dict[str, Any] = right(question)
        return {} if found.get("outcome") == "declined" else found

    return told


def hands_out_what_the_log_holds(right: Any) -> Any:
    return lambda value: value


def tells_a_telemetry_that_fell_of_more(right: Any) -> Any:
    def switch_off(observer: Observer, exc: BaseException) -> None:
        kept = observer._telemetry
        right(observer, exc)
        observer._telemetry = kept

    return switch_off


def lets_out_what_a_telemetry_raises(right: Any) -> Any:
    def switch_off(observer: Observer, exc: BaseException) -> None:
        right(observer, exc)
        raise exc

    return switch_off


BUGS = [
    Bug("L12", _telemetry, "copy_json", hands_out_what_the_log_holds),
    Bug("L12", Observer, "_switch_off", tells_a_telemetry_that_fell_of_more),
    Bug("L12", Observer, "_switch_off", lets_out_what_a_telemetry_raises),
    Bug("L11", Inbox, "post", says_yes_to_what_comes_too_late),
    Bug("L11", Transcript, "hear", hears_what_waits_twice),
    Bug("L11", Inbox, "hear_the_rest", forgets_what_waits_at_the_end),
    Bug("L10", _calls, "_start_data", runs_what_was_edited_as_it_was),
    Bug("L10", _calls, "_told", tells_what_a_hook_denied_as_an_error),
    Bug("L10", Question, "_told", forgets_that_a_question_was_declined),
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
