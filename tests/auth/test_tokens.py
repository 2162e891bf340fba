"""Tokens with their tenants, from a file."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from flowtrio.abc import Caller, NotAuthenticated, Request
from flowtrio.auth import TokenFile
from tests.serving.test_access import access, refused


def bearing(token: str) -> Request:
    headers = {"host": "localhost", "authorization": f"Bearer {token}"}
    return Request(path="/", headers=headers, cookies={}, query={}, client="::1")


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


HASHED = "sha256:" + hashlib.sha256(b"three").hexdigest()
UPPER = "sha256:" + hashlib.sha256(b"five").hexdigest().upper()
FILE = f"""
# who may come in
one    ann
  two  bob   operator
{HASHED} carol
{UPPER} dora
"""


@pytest.mark.parametrize(
    ("token", "caller"),
    [
        ("one", Caller("ann")),
        ("two", Caller("bob", is_operator=True)),
        ("three", Caller("carol")),
        ("five", Caller("dora")),
    ],
)
async def test_a_token_is_its_tenants(tmp_path: Path, token: str, caller: Caller) -> None:
    rules = access("0.0.0.0", authenticate=TokenFile(write(tmp_path, FILE)))

    assert await rules.admit(bearing(token), is_tls=False) == caller


@pytest.mark.parametrize("token", ["", "four", "onE", HASHED, "one ann", "#", "é"])
async def test_others_are_refused(tmp_path: Path, token: str) -> None:
    rules = access("0.0.0.0", authenticate=TokenFile(write(tmp_path, FILE)))

    assert (await refused(rules, bearing(token))).status == 401


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\nsecret", "line 2: expected a token, its tenant"),
        ("secret b c", "line 1: expected a token, its tenant"),
        ("secret b operator d", "line 1: expected a token, its tenant"),
        ("secret b\n\nsecret c", "line 3: its token stands there twice"),
        (f"three b\n{HASHED} c", "line 2: its token stands there twice"),
        ("s\xe9cret b", "line 1: expected a token in ASCII"),
        ("# nobody\n", "no token stands there"),
        ("sha256:5ecret b", "line 1: expected sha256: and 64 hexadecimal digits"),
        (f"{HASHED}0 b", "line 1: expected sha256: and 64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_line_and_not_by_its_words(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        TokenFile(write(tmp_path, text))

    assert "cret" not in str(raised.value)


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, mode: int, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flowtrio"):
        TokenFile(write(tmp_path, FILE, mode))

    assert len(caplog.records) == warnings
    assert "one" not in caplog.text.replace("none", "")


def test_nothing_of_the_tokens_is_shown(tmp_path: Path) -> None:
    tokens = TokenFile(write(tmp_path, "canary ann"))

    assert "canary" not in repr(tokens)
    with pytest.raises(NotAuthenticated) as raised:
        tokens(bearing("canary2"))
    assert "canary" not in str(raised.value)
