"""What a chat shows of each event: as plain text, and in a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from rich.console import Console

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.cli._screen import PlainScreen, RichScreen, printable
from tests.testing.test_checks import LAWFUL, USAGE, Log, asks_for_approval, delegates

T = EventType
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\x08\x9b31m\u202egood"
"""Clears the screen, renames the window, rings, goes back, colours, and turns the text round."""
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def events(log: Iterable[dict[str, Any]]) -> list[AgentEvent]:
    return [msgspec.convert(event, AgentEvent) for event in log]


def hostile() -> Log:
    """A run in which every text that somebody else wrote is hostile."""
    log = Log()
    child = f"root/{HOSTILE}"
    log.begin(message=HOSTILE)
    log.move("running", "running", HOSTILE)
    log.speak("m1", HOSTILE, "[red]&#27;[2J &#x202e;", finish_reason="tool_calls")
    log.start("c1", HOSTILE, arguments={HOSTILE: HOSTILE})
    log.say(T.TOOL_PROGRESS, call_id="c1", tool_name=HOSTILE, progress=HOSTILE)
    log.say(T.AGENT_START, child, agent=child, call_id="c1")
    log.speak("m2", HOSTILE, agent=child)
    log.say(
        T.AGENT_END, child, agent=child, call_id="c1", outcome="error", error=HOSTILE, result=None
    )
    log.end("c1", HOSTILE, outcome="error", error=f"[link]{HOSTILE}")
    log.fail(error=HOSTILE, code=HOSTILE)
    log[-1]["data"]["usage"] = {**USAGE, "cost": HOSTILE}
    return log


# Plain


def plain(log: Iterable[dict[str, Any]]) -> None:
    with PlainScreen() as screen:
        for event in events(log):
            screen.show(event)


def test_plain_text_is_what_the_model_says(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.begin()
    log.speak("m1", "Good ", "day")
    log.speak("m2", "", "to you\n")
    log.speak("m3")
    log.complete()
    plain(log)

    assert capsys.readouterr() == ("Good day\nto you\n", "")


def test_plain_text_comes_as_it_is_streamed(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="Goo", message_id="m1")
    with PlainScreen() as screen:
        for event in events(log):
            screen.show(event)
        with screen.paused():
            assert capsys.readouterr().out == "Goo"

    assert capsys.readouterr().out == "\n"


def test_nested_and_simultaneous_messages_come_whole_and_indented(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, child = Log(), "root/visa"
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="One, ", message_id="m1")
    log.say(T.AGENT_START, child, agent=child)
    log.say(T.MESSAGE_CHUNK, child, chunk="nested\n", message_id="m2")
    log.say(T.MESSAGE_CHUNK, chunk="Other", message_id="m3")
    log.speak("m2", "too", agent=child)
    log.say(T.AGENT_END, child, agent=child)
    log.speak("m1", "two")
    log.speak("m3", "wise")
    log.complete()
    whole = {"m1": "One, two", "m2": "nested\ntoo", "m3": "Otherwise"}
    for event in log:
        if event["type"] == "message_complete":
            event["data"]["content"] = whole[event["data"]["message_id"]]
    plain(log)

    assert capsys.readouterr().out == "One, two\n  nested\n  too\nOtherwise\n"


def test_plain_text_tells_how_it_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="Goo", message_id="m1")
    log.say(T.MESSAGE_RESET, message_id="m1", reason="cut")
    log.say(T.MESSAGE_RESET, message_id="m9", reason="cut")
    log.speak("m1", "Good")
    log.fail(code="agent_failed", error="ValueError: no")
    plain(log)

    out, err = capsys.readouterr()
    assert out == "Goo\nGood\n"
    assert err == "the answer is begun anew\nerror (agent_failed): ValueError: no\n"


@pytest.mark.parametrize("reason", ["stop button", None])
def test_plain_text_tells_that_it_was_cancelled(
    capsys: pytest.CaptureFixture[str], reason: str | None
) -> None:
    log = Log()
    log.say(T.RUN_START)
    log.cancel("initializing")
    log[-1]["data"]["reason"] = reason
    plain(log)

    assert capsys.readouterr().err == f"cancelled: {reason or 'no reason given'}\n"


def test_no_control_characters_reach_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    plain(hostile())

    out, err = capsys.readouterr()
    assert "good" in out
    assert "good" in err
    assert not CONTROLS.search(out + err)


# Rich


def terminal(**options: Any) -> Console:
    return Console(
        file=io.StringIO(),
        **{"force_terminal": True, "width": 100, "height": 30, "color_system": None, **options},
    )


def shown(screen: RichScreen) -> str:
    """What moves, as it stands now."""
    console = terminal(force_terminal=False)
    console.print(screen._draw())
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def kept(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def rich(log: Iterable[dict[str, Any]]) -> str:
    """All that a run leaves in a terminal."""
    console = terminal(force_terminal=False)
    with RichScreen(console) as screen:
        for event in events(log):
            screen.show(event)
    return kept(console)


def test_a_spinner_turns_for_each_tool_that_runs_with_its_progress() -> None:
    log = Log()
    log.begin()
    log.start("c1", "search_flights", message_id=None, arguments={"city": "Rome", "n": 2})
    log.start("c2", "search_hotels", message_id=None)
    log.say(T.TOOL_PROGRESS, call_id="c1", tool_name="search_flights", progress={"asked": 3})
    log.say(T.TOOL_PROGRESS, call_id="c9", tool_name="late", progress=1)
    with RichScreen(terminal()) as screen:
        assert "starting" in shown(screen)
        for event in events(log):
            screen.show(event)

        first, second = shown(screen).split("\n")[:2]
        assert first[2:].rstrip() == "search_flights(city=Rome, n=2)  {'asked': 3}"
        assert second[2:].rstrip() == "search_hotels()"
        spinners = [work.spinner for work in screen._work.values()]
        shown(screen)
        assert [work.spinner for work in screen._work.values()] == spinners


def test_text_is_drawn_as_it_streams_and_nested_agents_are_indented() -> None:
    log, child = Log(), "root/visa"
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="Hel", message_id="m1")
    log.say(T.MESSAGE_CHUNK, chunk="lo", message_id="m1")
    log.say(T.AGENT_START, child, agent=child)
    log.say(T.MESSAGE_CHUNK, child, chunk="nested", message_id="m2")
    with RichScreen(terminal()) as screen:
        for event in events(log):
            screen.show(event)
        lines = [line.rstrip() for line in shown(screen).split("\n")]

        assert lines[:2] == ["Hello", "  nested"]
        assert lines[2][2:] == "visa"
        screen.show(events([{**log[2], "type": "message_reset", "data": {"message_id": "m1"}}])[0])
        assert "Hello" not in shown(screen)


def test_a_text_longer_than_the_terminal_shows_its_end() -> None:
    log = Log()
    log.begin()
    log.say(T.MESSAGE_CHUNK, chunk="start " + "x" * 9000 + " end", message_id="m1")
    with RichScreen(terminal()) as screen:
        for event in events(log):
            screen.show(event)

        assert "start" not in shown(screen)
        assert " end" in shown(screen)


def test_what_ended_stays_with_its_outcome_and_the_usage_at_the_end() -> None:
    text = rich(delegates())

    assert "  ✗ lawyer#2 1.0 s error: E" in text
    assert "✓ visa 1.0 s" in text
    assert "✓ look() 0.5 s" in text
    assert text.rstrip().endswith("12 + 3 tokens, 1.5 s")
    text = rich(asks_for_approval())
    assert "✗ book denied" in text
    assert "✗ book timeout" in text


def test_markdown_is_rendered_and_addresses_are_written_out() -> None:
    log = Log()
    log.begin()
    log.speak("m1", "# Title\n\n[bank](http://evil.example)", finish_reason="length")
    log.speak("m2", "  ")
    log.complete()
    text = rich(log)

    assert "# Title" not in text
    assert "Title" in text
    assert "bank (http://evil.example)" in text
    assert "the answer ends here: length" in text


def test_a_cancelled_run_says_so_and_what_it_cost_at_least() -> None:
    log = Log()
    log.begin()
    log.speak("m1", "So far", finish_reason="cancelled")
    log.cancel()
    log[-1]["data"]["usage"] = {**USAGE, "quality": "lower_bound", "cost": "$0.01"}
    text = rich(log)

    assert "So far" in text
    assert "cancelled: stop button" in text
    assert "at least 12 + 3 tokens, $0.01, 1.5 s" in text


def test_an_error_is_told_with_its_code() -> None:
    log = Log()
    log.begin()
    log.fail(code="agent_failed", error="ValueError: [no]")

    assert "error (agent_failed): ValueError: [no]" in rich(log)


def test_what_comes_while_somebody_is_asked_waits_for_the_answer() -> None:
    console = terminal()
    log = asks_for_approval()
    with RichScreen(console) as screen:
        with screen.paused():
            with screen.paused():
                for event in events(log):
                    screen.show(event)
            assert "Booking" not in kept(console)
        assert "Booking" in kept(console)
        assert screen._live is not None


def test_what_was_held_is_shown_when_the_run_is_left_in_mid_question() -> None:
    console = terminal()
    screen = RichScreen(console)
    with screen:
        pause = screen.paused()
        pause.__enter__()
        for event in events(asks_for_approval()):
            screen.show(event)
    assert "Booking" in kept(console)
    pause.__exit__(None, None, None)
    assert screen._live is None


@pytest.mark.parametrize("make", LAWFUL)
def test_every_run_can_be_shown(make: Any) -> None:
    assert "tokens" in rich(make())


def test_no_control_characters_of_others_reach_a_terminal() -> None:
    console = terminal()
    with RichScreen(console) as screen:
        moving = ""
        for event in events(hostile()):
            screen.show(event)
            moving += shown(screen)
    # Rich's own, which move the cursor and style.
    text = re.sub(r"\x1b\[(\?25[hl]|[0-9;]*[AKm])|\r", "", kept(console))

    assert "good" in text
    assert not CONTROLS.search(text)
    assert not CONTROLS.search(moving)


def test_a_screen_that_lets_controls_pass_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flowtrio.cli._screen.printable", lambda text: text)
    plain(hostile())

    assert CONTROLS.search(capsys.readouterr().out)


def test_a_console_is_made_where_none_is_given() -> None:
    assert isinstance(RichScreen()._console, Console)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("à\xa0vous 👩\u200d💻", "à\xa0vous 👩\u200d💻"),
        ("\x1b[2J\u202e\x00\x9b", "�[2J���"),
    ],
)
def test_printable_keeps_what_is_text(text: str, expected: str) -> None:
    assert printable(text) == expected
