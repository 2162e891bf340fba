"""What a failed test leaves behind: the run's log, a timeline, and the command that replays it."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flowtrio.wire._json import encode_json

from ._replay import Played
from ._timeline import text_timeline

if TYPE_CHECKING:
    import pytest

_LINES = 40
"""Of a timeline that is shown in the report and not only in its file."""


def tell(item: pytest.Item, played: Played) -> str:
    """Write the files of a failed test's last run; give what its report says."""
    stem = str(_directory(item) / re.sub(r"[^\w.-]+", "_", item.nodeid)[-120:])
    log, picture = Path(f"{stem}.jsonl"), Path(f"{stem}.txt")
    log.write_bytes(b"".join(encode_json(event) + b"\n" for event in played.events))
    timeline = "\n".join([text_timeline(played.events), *played.notes])
    picture.write_text(timeline + "\n", encoding="utf-8")
    lines = [timeline] if timeline.count("\n") < _LINES else []
    lines += [f"log:      {_shown(item, log)}", f"timeline: {_shown(item, picture)}"]
    command = f"python -m pytest {shlex.quote(item.nodeid)}"
    if played.case is not None:
        case = Path(f"{stem}.json")
        case.write_bytes(played.case.to_json())
        command += f" --flowtrio-replay={shlex.quote(_shown(item, case))}"
    return "\n".join([*lines, f"replay:   {command}"])


def _directory(item: pytest.Item) -> Path:
    """Where pytest keeps what outlives a run of it, or somewhere else where it keeps nothing."""
    cache = getattr(item.config, "cache", None)
    if cache is None:
        return Path(tempfile.mkdtemp(prefix="flowtrio-"))
    return Path(cache.mkdir("flowtrio"))


def _shown(item: pytest.Item, path: Path) -> str:
    """A path as it is typed where pytest was started."""
    here = item.config.invocation_params.dir
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
