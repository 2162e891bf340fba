"""What is read of a Durable Stream, held to the protocol's own tests of servers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from tests.support.node import make_place, try_program

from .servers import serving

SCRIPT = Path(__file__).with_name("durable_streams.test.mjs")
LEFT_OUT: Final = {
    "streams end when nobody has deleted them": "TTL|Expires-At",
    "streams cannot be deleted": "delet|DELETE",
    "writers number nothing": r"(?<!without )\bseq\b|sequence (ordering|numbers)",
    "writers number nothing, and repeat nothing": "Idempotent|producer|body-dedup",
    "streams do not branch": "^Fork",
    "nobody is called when something comes": "webhook|subscription",
}
"""What is not asked of a side that reads, and why: patterns of the tests' full names."""
READ: Final = 165
"""There are at least as many tests left."""


def run_tests(folder: Path, pattern: str, *arguments: str) -> dict[str, list[str]]:
    """The full names of the protocol's tests, by what became of them."""
    place = make_place(folder, SCRIPT)
    vitest = str(place / "node_modules" / ".bin" / "vitest")
    with serving("durable_streams_server", *arguments) as [address]:
        options = ("--reporter=json", "--outputFile=told.json", "--testNamePattern", pattern)
        # One of them makes hundreds of requests, for which it has five seconds by itself.
        options += ("--testTimeout=60000",)
        try_program(place, vitest, "run", SCRIPT.name, *options, FLOWTRIO_SITE=address)
    told = json.loads((place / "told.json").read_text())
    found: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for file in told["testResults"]:
        for test in file["assertionResults"]:
            found[test["status"]].append(test["fullName"])
    return found


def test_the_protocols_tests_hold_of_all_that_is_read(tmp_path: Path) -> None:
    left_out = "|".join(LEFT_OUT.values())
    found = run_tests(tmp_path, f"^(?!.*({left_out}))")

    assert found["failed"] == []
    assert len(found["passed"]) >= READ
    # Nothing was left out but what is named.
    assert [name for name in found["skipped"] if not re.search(left_out, name)] == []


def test_a_planted_bug_is_found(tmp_path: Path) -> None:
    found = run_tests(tmp_path, "^Long-Poll Edge Cases", "planted")

    assert found["failed"] == [
        "Long-Poll Edge Cases should echo cursor and handle collision with jitter"
    ]
