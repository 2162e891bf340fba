"""The pictures of the corridor and of a run show what is there."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import flowtrio
from flowtrio.testing import check_events

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(flowtrio.__file__).parent


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


corridor = _script("_corridor")
run = _script("_run_picture")


def test_the_corridor_on_disk_is_what_the_script_draws() -> None:
    assert corridor.PICTURE.read_text("utf-8") == corridor.draw()


def test_each_stage_is_a_part_of_the_package() -> None:
    parts = re.findall(r'data-part="([^"]+)"', corridor.draw())

    assert len(parts) == len(corridor.STAGES)
    assert [part for part in parts if not (PACKAGE / part).is_dir()] == []


def test_the_picture_of_a_run_is_drawn_from_its_log() -> None:
    assert run.PICTURE.read_text("utf-8") == run.draw()


def test_the_log_in_the_picture_obeys_the_laws() -> None:
    log = [json.loads(line) for line in run.LOG.read_text("utf-8").splitlines()]

    check_events(log)
    assert {e["agent"] for e in log} == {"root", "root/visa"}


async def test_the_run_can_be_played_again(autojump_clock: object) -> None:
    """Order within one instant is Trio's to choose; what happens is not."""
    old = [json.loads(line) for line in run.LOG.read_text("utf-8").splitlines()]
    new = [json.loads(line) for line in await run.play()]

    assert sorted(e["type"] for e in new) == sorted(e["type"] for e in old)


@pytest.mark.parametrize("name", ["corridor.svg", "run.svg", "states.svg"])
def test_pictures_ask_nobody_for_anything(name: str) -> None:
    picture = (DOCS / name).read_text("utf-8")

    assert re.findall(r"(?:href|src)=|<script|@import|url\((?!#)", picture) == []
