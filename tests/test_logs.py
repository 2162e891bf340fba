"""What a server logs, as JSON."""

from __future__ import annotations

import json
import logging
import sys

from flowtrio._logs import JSONFormatter


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
