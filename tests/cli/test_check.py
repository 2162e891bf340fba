"""``flowtrio check``: what it takes for a log, and what it refuses."""

from __future__ import annotations

import copy
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowtrio.cli import _check
from flowtrio.cli._check import BROKEN, LAWFUL, NO_LOG, check_file, read_runs
from tests.testing.test_checks import STILL_LAWFUL, Log, answers, delegates, fails, lawful

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "command-line.md"


def lines(log: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in log)


def check(tmp_path: Path, text: str) -> int:
    path = tmp_path / "log.jsonl"
    path.write_text(text, encoding="utf-8")
    return check_file(str(path))


def alterations(log: Log) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every log that one alteration of one event gives, its number untouched."""
    for i, event in enumerate(log):
        yield f"{i} removed", log[:i] + log[i + 1 :]
        yield f"{i} doubled", [*log[: i + 1], *log[i:]]
        for place, key, value in _altered(event):
            mutant = copy.deepcopy(event)
            (mutant if place == "envelope" else mutant["data"])[key] = value
            yield f"{i} {key}={value!r}", [*log[:i], mutant, *log[i + 1 :]]
    for i, (one, two) in enumerate(itertools.pairwise(log)):
        yield f"{i} swapped", [*log[:i], two, one, *log[i + 2 :]]


def _altered(event: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    data = event["data"]
    yield from (("envelope", "seq", event["seq"] + by) for by in (-1, 1))
    for key in ("old_status", "new_status", "status"):
        if key in data:
            yield "data", key, "waiting_for_input" if data[key] != "waiting_for_input" else "error"
    if "content" in data:
        yield "data", "content", f"{data['content']}x"
    if "call_id" in data and event["type"] != "tool_progress":
        yield "data", "call_id", "zz"
    if "request_id" in data:
        yield "data", "request_id", "zz"


@lawful
def test_a_log_with_any_one_alteration_is_refused(
    make: Callable[[], Log], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, lines(make())) == LAWFUL
    for name, mutant in alterations(make()):
        assert check(tmp_path, lines(mutant)) == BROKEN, name
        out = capsys.readouterr().out
        assert re.search(r"\b(L\d+|shape) is broken (by|at)", out), name
        assert "\n> " in out, name


def test_a_check_that_looks_at_nothing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_check, "check_events", lambda events: None)

    assert {check(tmp_path, lines(mutant)) for _, mutant in alterations(answers())} == {LAWFUL}


def test_the_guide_names_every_reason_why_an_altered_log_may_stay_lawful() -> None:
    """As the exhaustive test in tests/testing/test_checks.py has them, and no other."""
    guide = GUIDE.read_text(encoding="utf-8")
    listed = guide.split("by an exhaustive test:\n", 1)[1].split("\nAn altered text", 1)[0]
    items = [" ".join(item.split()) for item in listed.split("\n- ")[1:]]

    assert len(items) == len(STILL_LAWFUL)
    for item, reason in zip(items, STILL_LAWFUL, strict=True):
        assert item.startswith(reason)


# What is a log


def test_a_log_is_read_as_a_server_sends_it() -> None:
    """Batches, replies between the events, blank lines, and separators that are no line ends."""
    log = answers()
    log[0]["data"]["message"] = "one\u2028two"
    accepted = {"type": "accepted", "ref": None, "run_id": "r1"}
    text = "\n".join(
        [
            json.dumps(accepted),
            json.dumps(log[:2], ensure_ascii=False),
            "",
            json.dumps({"type": "rejected", "ref": 1, "code": "unknown_run", "error": "x"}),
            *(json.dumps(event) for event in log[2:]),
        ]
    )

    assert read_runs(text) == {"r1": log}


def test_linked_logs_are_lawful(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As ``?linked=1`` gives them: each event names the one before it."""
    linked = [{**event, "after": event["seq"] - 1} for event in answers()]

    assert read_runs(lines(linked)) == {"r1": answers()}
    assert read_runs(json.dumps(linked)) == {"r1": answers()}
    assert check(tmp_path, lines(linked)) == LAWFUL


def test_runs_are_told_apart_and_the_worst_gives_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [{**event, "run_id": "r2"} for event in fails()]
    mixed = [event for pair in itertools.zip_longest(delegates(), other[:-1]) for event in pair]

    assert check(tmp_path, lines(event for event in mixed if event)) == BROKEN
    out = capsys.readouterr().out
    assert "run r1: 17 events, lawful" in out
    assert f"run r2: {len(other) - 1} events, not lawful" in out
    assert "L2 is broken at place" in out


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it has no events"),
        (b"\n \n", "it has no events"),
        (b"hello", "line 1 is not JSON"),
        (b'\n{"type":', "line 2 is not JSON"),
        (b"[1]", "line 1 is no event: expected a JSON object"),
        (b"7", "line 1 is no event: expected a JSON object"),
        (b'{"a": 1}', "line 1 is no event: expected type, data, seq"),
        (b'{"type": "done"}', "line 1 is no event: expected type, data, seq"),
        (b"\xff\xfe", "it is not text in UTF-8"),
        (b"[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_what_is_no_log_is_told_in_one_line(
    data: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(data)

    assert check_file(str(path)) == NO_LOG
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}: no log of events: {words}")
    assert err.count("\n") == 1


def test_standard_input_is_read_and_a_mark_at_its_beginning_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = b"\xef\xbb\xbf" + lines(answers()).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    assert check_file("-") == LAWFUL
    assert capsys.readouterr().out == f"run r1: {len(answers())} events, lawful\n"


def test_hostile_logs_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = answers()
    for event in log:
        event["run_id"] = "\x1b[2Jr1"
    log[2]["type"] = "\x1b[2J"
    log[3]["agent"] = "root/\x9b31m"

    assert check(tmp_path, lines(log)) == BROKEN
    assert not {"\x1b", "\x9b"} & set(capsys.readouterr().out)
