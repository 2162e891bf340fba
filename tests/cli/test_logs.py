"""What a server logs, as JSON."""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import datetime
from typing import Any

import pytest

from flowtrio import ProviderError, RunContext, StreamEngine
from flowtrio._core._telling import tell
from flowtrio.cli._logs import JSONFormatter, configure_logging


def test_a_record_is_one_object_with_what_was_given_beside_its_message() -> None:
    logger = logging.getLogger("flowtrio.test")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        record = logger.makeRecord(
            *("flowtrio.test", logging.ERROR, "x.py", 1, "run %s\nfailed", ("r",), sys.exc_info()),
            extra={"run_id": "r", "odd": {1}},
        )
    text = JSONFormatter().format(record)
    line = json.loads(text)

    assert "\n" not in text
    assert set(line) == {"time", "level", "logger", "message", "run_id", "odd", "exception"}
    assert (line["level"], line["message"], line["odd"]) == ("ERROR", "run r\nfailed", "{1}")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def line_with(extra: dict[Any, Any]) -> dict[str, Any]:
    """The line of a record with these extras, however they came into it."""
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "name": "x"})
    vars(record).update(extra)
    text = JSONFormatter().format(record)
    line = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    assert (line["message"], line["level"], line["logger"]) == ("hello", "INFO", "x")
    assert datetime.fromisoformat(line["time"])
    assert "\n" not in text
    return dict(line)


@pytest.mark.parametrize("name", ["time", "level", "logger", "exception", "extra"])
def test_extras_that_are_named_like_a_lines_own_keys_change_none_of_them(name: str) -> None:
    assert line_with({name: 1})["extra"] == {name: 1}


def test_names_that_are_no_text_stand_in_the_line() -> None:
    assert line_with({7: 1, ("a", 2): 3, "b": 4})["extra"] == {"7": 1, "('a', 2)": 3}


class Mute:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


ITSELF: list[Any] = []
ITSELF.append(ITSELF)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({("a", 1): 2}, "{('a', 1): 2}"),
        (ITSELF, "[[...]]"),
        (DEEP, "<list>"),
        (math.nan, "nan"),
        ([math.inf], "[inf]"),
        (10**5000, "<int>"),
        (Mute(), "<Mute>"),
        ([Mute()], "<list>"),
        (b"x", "b'x'"),
        ("\ud800", "\ud800"),
        ({"a": [1, None]}, {"a": [1, None]}),
    ],
    ids=[
        "keys",
        "itself",
        "deep",
        "nan",
        "inf",
        "huge",
        "mute",
        "mutes",
        "bytes",
        "surrogate",
        "plain",
    ],
)
def test_values_that_are_no_json_lose_neither_their_line_nor_others(
    value: object, told: object
) -> None:
    line = line_with({"odd": value, "run_id": "r"})

    assert (line["odd"], line["run_id"]) == (told, "r")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_format_is_that_of_standard_error(
    log_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "root", root)
    configure_logging(log_format)
    root.info("hello %s", "you")
    line = capsys.readouterr().err

    if log_format == "json":
        assert json.loads(line)["message"] == "hello you"
    else:
        assert line.endswith(" INFO root: hello you\n")


RUN_KEYS = {
    *("run_id", "tenant", "session", "agent", "status", "code", "duration", "events"),
    *("prompt_tokens", "completion_tokens"),
}


async def lines_of(
    exc: BaseException | None, caplog: pytest.LogCaptureFixture, level: int = logging.INFO
) -> list[dict[str, Any]]:
    """The lines of a run that ends in *exc*."""

    async def agent(ctx: RunContext, message: str) -> None:
        if exc is not None:
            raise exc

    with caplog.at_level(level, "flowtrio"):
        async with StreamEngine().stream(agent, "hello", run_id="r") as stream:
            async for _ in stream:
                pass
    return [json.loads(JSONFormatter().format(record)) for record in caplog.records]


REFUSED = ProviderError(
    "the host answers 429",
    status=429,
    code="rate_limited",
    detail={"status": 429, "request_id": "req_7", "words": "quota\nof gpt-x is used up"},
)


async def test_a_run_is_one_line_whose_facts_are_keys(caplog: pytest.LogCaptureFixture) -> None:
    [line] = await lines_of(None, caplog)

    assert set(line) >= RUN_KEYS
    assert (line["level"], line["run_id"], line["status"], line["code"]) == (
        *("INFO", "r", "completed"),
        None,
    )
    assert isinstance(line["duration"], float)
    assert isinstance(line["prompt_tokens"], int)


async def test_a_failed_run_is_one_warning_with_the_providers_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [line] = await lines_of(REFUSED, caplog)

    assert set(line) >= RUN_KEYS
    assert (line["level"], line["status"], line["code"]) == ("WARNING", "error", "rate_limited")
    assert (line["request_id"], line["words"]) == ("req_7", "quota\nof gpt-x is used up")
    assert line["error"] == "the host answers 429"
    assert "request_id=req_7" in line["message"]
    assert r"quota\nof gpt-x is used up" in line["message"], "on one line"
    assert "exception" not in line


async def test_words_that_the_reason_has_are_not_said_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exc = ProviderError("429: no more", code="rate_limited", detail={"words": "no more"})
    [line] = await lines_of(exc, caplog)

    assert line["message"].count("no more") == 1


async def test_who_debugs_gets_the_traceback_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    first, second = await lines_of(REFUSED, caplog, logging.DEBUG)

    assert (first["level"], second["level"], second["run_id"]) == ("WARNING", "DEBUG", "r")
    assert "Traceback" in second["exception"]


async def test_a_bug_stands_in_the_line_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [line] = await lines_of(ZeroDivisionError("no"), caplog)

    assert (line["level"], line["code"], line["source"]) == ("WARNING", "agent_failed", "agent")
    assert line["exception"].endswith("ZeroDivisionError: no")


def test_a_line_of_a_run_has_its_id(caplog: pytest.LogCaptureFixture) -> None:
    tell(logging.WARNING, "run %s: something is odd", "r")
    tell(logging.WARNING, "the clock is odd")
    [of_a_run, other] = [json.loads(JSONFormatter().format(r)) for r in caplog.records]

    assert of_a_run["run_id"] == "r"
    assert "run_id" not in other


async def test_lines_that_an_agent_writes_itself_carry_its_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)

    async def agent(ctx: RunContext, message: str) -> None:
        logging.getLogger("shop").warning("inside")
        logging.getLogger("shop").warning("of another", extra={"run_id": "other"})

    configure_logging("json")
    async with StreamEngine().stream(agent, "Hi", run_id="r") as stream:
        await stream.result()
    logging.getLogger("shop").warning("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = {line["message"]: line.get("run_id") for line in lines if line["logger"] == "shop"}

    assert told == {"inside": "r", "of another": "other", "outside": None}
