"""What a server logs, as JSON."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from flowtrio._logs import JSONFormatter, configure_logging


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
