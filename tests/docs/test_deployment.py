"""The unit of systemd starts the command that there is, and the security page tells what holds."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest

from flowtrio import ServerLimits
from flowtrio.cli._main import _parser
from flowtrio.cli._serve import _LAST
from tests.docs.test_guides import guide, rows

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
UNIT = DEPLOY / "flowtrio.service"
UNITS = sorted(DEPLOY.glob("*.service"))


def service(unit: Path = UNIT) -> dict[str, str]:
    """A unit's section of the service."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return dict(parser["Service"])


def started(unit: Path = UNIT) -> Any:
    """What a unit's command line means to the command; an instance is called by its port."""
    _, *arguments = shlex.split(service(unit)["ExecStart"].replace("%i", "8000"))
    return _parser().parse_args(arguments)


def test_the_unit_starts_a_command_that_there_is() -> None:
    assert started().store.startswith(f"sqlite:/var/lib/{service()['StateDirectory']}/")


def test_the_units_of_a_cluster_have_their_roles_and_tell_no_password() -> None:
    roles = {unit.name: started(unit).role for unit in UNITS}

    assert roles == {
        "flowtrio.service": "both",
        "flowtrio-gateway@.service": "gateway",
        "flowtrio-worker@.service": "worker",
    }
    assert not [unit for unit in UNITS if "redis://" in service(unit)["ExecStart"]]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_fits_the_command(unit: Path) -> None:
    options = started(unit)

    assert options.token == (), "arguments can be read by everybody on the machine"
    assert float(service(unit)["TimeoutStopSec"]) > options.drain + _LAST
    assert int(service(unit)["LimitNOFILE"]) > 2 * ServerLimits().connections


@pytest.mark.parametrize(
    ("old", "new", "is_well"), [("", "", True), ("Restart=", "Restrat=", False)]
)
def test_systemd_takes_the_unit(old: str, new: str, is_well: bool, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine; the other tests read the unit themselves")
    text = UNIT.read_text("utf-8").replace("/opt/flowtrio/bin/flowtrio", "/bin/true")
    text = text.replace("/opt/trips", "/tmp").replace("/etc/flowtrio.env", "-/etc/flowtrio.env")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(old, new) if old else text)
    ended = subprocess.run(
        [program, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about_it = [line for line in ended.stderr.splitlines() if UNIT.name in line]

    assert (about_it == []) == is_well, ended.stderr


def test_the_configurations_are_each_in_the_guides() -> None:
    shown = set(re.findall(r"\{literalinclude\} \.\./deploy/(\S+)", guide("deployment")))
    shown |= set(re.findall(r"\{literalinclude\} \.\./deploy/(\S+)", guide("machines")))

    assert shown == {path.name for path in DEPLOY.iterdir()}


# Security


def closing_codes() -> set[int]:
    """The codes that the code closes with, and those of the protocol that it answers with."""
    serving = Path(__file__).parents[2] / "flowtrio" / "serving"
    text = "".join(path.read_text("utf-8") for path in serving.rglob("*.py"))
    found = re.findall(
        r"(?:_refuse\(session|say_goodbye|CloseReason|code=)[(, =]*(1\d\d\d)\b", text
    )
    return {int(code) for code in found} | {1000, 1002, 1007}


def told_codes(text: str) -> set[int]:
    return {int(code) for row in rows(text, "code")[1:] for code in re.findall(r"\d{4}", row[0])}


def test_the_codes_of_the_security_page_are_those_of_the_code() -> None:
    assert told_codes(guide("security")) == closing_codes()
    assert told_codes(guide("security").replace("| 1012 |", "| 1011 |")) != closing_codes()


def test_each_limit_is_an_option_of_the_command_and_has_an_effect_told() -> None:
    _, *body = rows(guide("security"), "limit")
    told = {name for row in body for name in re.findall(r"`(\w+)`", row[0])}
    options = vars(_parser().parse_args(["serve"]))

    assert told == {field.name for field in attrs.fields(ServerLimits)}
    assert told == {name.removeprefix("limit_") for name in options if name.startswith("limit_")}
    assert all(row[2] for row in body)
