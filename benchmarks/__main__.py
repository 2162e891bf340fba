"""``python -m benchmarks``: measure, and print the table. Never fails because of a ratio."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from . import (
    calls,
    cluster,
    decode,
    hosts,
    idle,
    page,
    paused,
    processes,
    reopen,
    serving,
    stores,
    telemetry,
    tokens,
    wire,
)
from ._measure import Row

SUBJECTS: dict[str, Callable[[bool], list[Row]]] = {
    "tokens": tokens.rows,
    "telemetry": telemetry.rows,
    "calls": calls.rows,
    "idle": idle.rows,
    "paused": paused.rows,
    "decode": decode.rows,
    "serving": serving.rows,
    "stores": stores.rows,
    "reopen": reopen.rows,
    "cluster": cluster.rows,
    "processes": processes.rows,
    "page": page.rows,
    "wire": wire.rows,
    "hosts": hosts.rows,
}
LINE = "{:<60} {:>9} {:>10} {:<6} {:>6}  {:<13} {:>6}  {}"
ANSWERS = {True: "yes", False: "NO", None: ""}


def main(given: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--quick", action="store_true", help="small sizes, rough figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(given)
    if unknown := set(options.subjects) - set(SUBJECTS):
        parser.error(f"unknown subject {', '.join(sorted(unknown))}")
    print(f"Python {platform.python_version()}, trio {trio.__version__}")
    print(LINE.format("subject", "ours", "theirs", "", "ratio", "single rounds", "target", "met"))
    found: list[Row] = []
    for subject in options.subjects or SUBJECTS:
        for row in SUBJECTS[subject](options.quick):
            print(_line(row), flush=True)
            found.append(row)
    print("Targets are the largest ratio that is wanted; with a *, the largest figure of ours.")
    if options.json is not None:
        options.json.write_text(json.dumps([row.to_json() for row in found], indent=1) + "\n")


def _line(row: Row) -> str:
    spread = "" if row.spread is None else "{:.2f} to {:.2f}".format(*row.spread)
    target = "" if row.target is None else f"{row.target:g}"
    if row.limit is not None:
        target = f"{row.limit:g}*"
    return LINE.format(
        row.subject,
        f"{row.ours:.2f}",
        f"{row.theirs:.2f}",
        row.unit,
        f"{row.ratio:.2f}",
        spread,
        target,
        ANSWERS[row.is_reached],
    ).rstrip()


if __name__ == "__main__":
    main()
