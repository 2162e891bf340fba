"""Recorded answers of real providers, where a folder of them is present.

The project does not contain them. The folder holds ``manifest.json``, a list of ``{id, file,
provider}``, and ``expected.json``, what the providers' own libraries make of the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

STREAMS: Final = Path(
    os.environ.get("FLOWTRIO_STREAMS", Path(__file__).parents[3] / "shared" / "streams")
)


@attrs.frozen
class Recording:
    """A recorded answer."""

    id: str
    provider: str
    data: bytes
    expected: dict[str, Any]


def recordings_of(providers: Container[str]) -> list[Recording]:
    """The recordings of these providers; skips the module that asks where there is no folder."""
    if not (STREAMS / "manifest.json").is_file():
        pytest.skip("no recordings: FLOWTRIO_STREAMS names their folder", allow_module_level=True)
    expected = json.loads((STREAMS / "expected.json").read_bytes())["streams"]
    return [
        Recording(
            entry["id"],
            entry["provider"],
            (STREAMS / entry["file"]).read_bytes(),
            expected[entry["id"]],
        )
        for entry in json.loads((STREAMS / "manifest.json").read_bytes())
        if entry["provider"] in providers
    ]
