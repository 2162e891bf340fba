"""Options from the environment: read like those that are given, and told by their name."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio.cli._environment import variable_of
from flowtrio.cli._main import _parser
from flowtrio.cli._options import read_serving


@pytest.fixture(autouse=True)
def _nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for action in serve_actions():
        monkeypatch.delenv(variable_of(action) or "_", raising=False)


def serve_actions() -> list[Any]:
    subparsers: Any = _parser()._actions[1]
    return list(subparsers.choices["serve"]._actions)


def read(*arguments: str) -> Any:
    return _parser().parse_args(["serve", *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exited:
        read(*arguments)
    assert exited.value.code == 2
    return capsys.readouterr().err


VALUES = {
    "FLOWTRIO_PORT": ("81", 81),
    "FLOWTRIO_NO_WS": ("yes", True),
    "FLOWTRIO_INSECURE": ("0", False),
    "FLOWTRIO_TOKEN": ("one\n two \n\n", ("one", "two")),
    "FLOWTRIO_OPERATOR_TOKEN": ("a secret", ("a secret",)),
    "FLOWTRIO_STORE": ("sqlite:x", "sqlite:x"),
    "FLOWTRIO_KEEP": ("2m", 120.0),
    "FLOWTRIO_PROTOCOLS": ("ag-ui", ("ag-ui",)),
    "FLOWTRIO_LOG_FORMAT": ("json", "json"),
    "FLOWTRIO_LIMIT_MEDIA_TYPES": ("image/png", ("image/png",)),
    "FLOWTRIO_AGENT": ("a:b", "a:b"),
}


@pytest.mark.parametrize("name", VALUES)
def test_an_option_may_stand_in_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = VALUES[name]
    monkeypatch.setenv(name, text)
    dest = name.removeprefix("FLOWTRIO_").lower()

    assert getattr(read(), dest) == value


def test_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTRIO_PORT", "not read")
    monkeypatch.setenv("FLOWTRIO_TOKEN", "old")
    options = read("--port", "82", "--token", "new", "--token", "newer")

    assert (options.port, options.token) == (82, ("new", "newer"))
    assert read_serving(options).tokens == ("new", "newer")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTRIO_PORT", "")
    monkeypatch.setenv("FLOWTRIO_TOKEN", "")

    assert (read().port, read().token) == (8000, ())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("FLOWTRIO_PORT", "x", "FLOWTRIO_PORT: expected a port from 0 to 65535, got 'x'"),
        ("FLOWTRIO_NO_WS", "maybe", "FLOWTRIO_NO_WS: expected 1 or 0, got 'maybe'"),
        ("FLOWTRIO_LOG_FORMAT", "xml", "FLOWTRIO_LOG_FORMAT: expected one of text, json"),
        ("FLOWTRIO_KEEP", "0", "FLOWTRIO_KEEP: expected more than 0"),
        ("FLOWTRIO_LIMIT_HEAD", "big", "FLOWTRIO_LIMIT_HEAD: expected a number"),
        ("FLOWTRIO_PROTOCOLS", "smtp", "FLOWTRIO_PROTOCOLS: unknown smtp; exp"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_variable(
    name: str,
    text: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, text)

    assert f"flowtrio serve: {words}" in refused(capsys)


def test_every_option_has_a_variable_and_help_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWTRIO_PORT", "x")  # Help is given all the same.
    monkeypatch.setenv("FLOWTRIO_TOKEN", "a-secret")
    with pytest.raises(SystemExit):
        read("--help")
    told = capsys.readouterr().out
    options = [action for action in serve_actions() if action.dest != "help"]

    assert options
    assert [a.dest for a in options if (variable_of(a) or "?") not in told] == []
    assert "a-secret" not in told


def test_other_commands_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTRIO_AGENT", "a:b")

    assert "FLOWTRIO" not in _parser().format_help()
    assert _parser().parse_args(["chat", "hi"]).agent is None
