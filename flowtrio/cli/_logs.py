"""What a server writes to standard error: lines for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from flowtrio._core._telling import log_keys

FORMATS: Final = ("text", "json")
"""What ``--log-format`` may name."""

_USUAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What each record has; anything else was given as ``extra``."""


_FIXED: Final = frozenset({"time", "level", "logger", "message", "exception", "extra"})
"""Keys whose meaning no record can change."""


class JSONFormatter(logging.Formatter):
    """One JSON object a record: ``time``, ``level``, ``logger``, ``message``, ``exception``.

    What a record was given as ``extra`` stands beside them, or in an object ``extra`` of its own
    where its name is no text, or one of those. What cannot be JSON is told as Python would.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _USUAL:
                is_free = isinstance(name, str) and name not in _FIXED
                place = line if is_free else line.setdefault("extra", {})
                place[name if isinstance(name, str) else _words(name)] = _fit(value)
        return json.dumps(line, default=repr)


def _fit(value: object) -> object:
    """What can stand in a line: *value*, or words for it. A record may be given anything."""
    try:
        json.dumps(value, default=repr, allow_nan=False)
    except Exception:
        return _words(value)
    return value


def _words(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def configure_logging(log_format: str) -> None:
    """Write what is logged to standard error, in one of `FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(tell_run)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def tell_run(record: logging.LogRecord) -> bool:
    """Give a record that was written inside a run the run's id, whoever wrote it."""
    for name, value in log_keys().items():
        vars(record).setdefault(name, value)
    return True
