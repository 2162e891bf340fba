"""The pages that the documents show, checked against the packages that they use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.test_blocks import PROJECT, blocks_in
from tests.support.node import make_place, try_program

PAGES = [PROJECT / "docs" / "guides" / name for name in ("ai-sdk.md", "ag-ui-client.md")]


def check(folder: Path, source: str) -> str:
    """What the compiler has to say of a page; nothing where all is right."""
    place = make_place(folder, Path(__file__).with_name("tsconfig.json"))
    (place / "page.tsx").write_text(source)
    ran = try_program(place, str(place / "node_modules" / ".bin" / "tsc"), "-p", "tsconfig.json")
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_in_the_documents_fits_the_packages_that_it_uses(path: Path, tmp_path: Path) -> None:
    blocks = blocks_in(path, path.read_text("utf-8"))
    pages = [block for block in blocks if block.kind in ("ts", "tsx")]

    assert pages
    for number, page in enumerate(pages):
        (folder := tmp_path / str(number)).mkdir()
        assert check(folder, page.source) == ""


@pytest.mark.parametrize(
    ("source", "unknown"),
    [
        (
            'import { useChat } from "@ai-sdk/react";\nuseChat({ sendAutomatically: true });\n',
            "sendAutomatically",
        ),
        (
            'import { HttpAgent } from "@ag-ui/client";\n'
            'new HttpAgent({ url: "/" }).openInterrupts;\n',
            "openInterrupts",
        ),
    ],
)
def test_a_page_that_does_not_fit_is_found(source: str, unknown: str, tmp_path: Path) -> None:
    assert unknown in check(tmp_path, source)
