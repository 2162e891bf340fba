"""What a failed test leaves behind: the run's log, a timeline, and the command that replays it.

And how it is replayed.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtrio.pictures._text import text_timeline
from flowtrio.wire._json import encode_json

from ._hypothesis import drawing, drawn_for, only_examples
from ._replay import Played, Replay, replayed

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
    if played.cases:
        cases = Path(f"{stem}.json")
        cases.write_bytes(Replay(played.cases, drawn_for(played.example)).to_json())
        command += f" --flowtrio-replay={shlex.quote(_shown(item, cases))}"
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


@contextmanager
def replaying(item: pytest.Item, replay: Replay) -> Iterator[None]:
    """Have a test run once in the block, without a search, and play what is forced on it.

    Raises:
      Failed: pytest's own: it passed, and has not simulated all that it did.

    """
    import pytest

    test: Any = getattr(item, "obj", None)
    with ExitStack() as stack:
        if replay.drawn is not None and hasattr(test, "hypothesis"):
            is_drawn = bool(replay.drawn)
            played = drawing(test, replay.drawn) if is_drawn else only_examples(test)
            stack.enter_context(played)
        yield
    if len(replayed) < len(replay.cases):
        name = item.config.getoption("--flowtrio-replay")
        what = (
            f"only {len(replayed)} of {len(replay.cases)} runs were" if replayed else "nothing was"
        )
        how = f"called flowtrio.testing.simulate{' more often' if replayed else ''}"
        pytest.fail(
            f"--flowtrio-replay {name}: {what} replayed, since this test has not {how}. "
            "Name the test that the file was written for",
            pytrace=False,
        )
