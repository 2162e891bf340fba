"""Who may come in to ``flowtrio serve``: tokens, a file of them, a function."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtrio.abc import Caller
from flowtrio.auth import TokenFile
from flowtrio.cli._load import UsageError
from flowtrio.cli._main import _parser
from flowtrio.cli._options import read_serving
from flowtrio.cli._serve import Serving, _check
from flowtrio.cli._stores import CannotServe
from tests.auth.test_tokens import bearing, write

HERE = __name__


def who(request: object) -> str:
    return "ann"


def served(*arguments: str) -> Serving:
    return read_serving(_parser().parse_args(["serve", *arguments]))


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = write(tmp_path, "one ann\ntwo bob operator\n")
    serving = served("--tokens", str(path), "--host", "0.0.0.0")
    _check(serving)

    assert isinstance(serving.authenticate, TokenFile)
    assert serving.authenticate(bearing("two")) == Caller("bob", is_operator=True)


def test_a_function_of_ones_own() -> None:
    serving = served("--authenticate", f"{HERE}:who", "--host", "0.0.0.0")
    _check(serving)

    assert serving.authenticate is who


def test_tokens_alone_ask_nobody() -> None:
    assert served("--token", "one").authenticate is None


def test_an_operators_token_lets_nobody_else_in() -> None:
    with pytest.raises(CannotServe, match="expected --token, --tokens, --authenticate"):
        _check(served("--operator-token", "op", "--host", "0.0.0.0"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--token", "a", "--tokens", "x"), "--token and --tokens: expected one"),
        (("--tokens", "x", "--authenticate", "a:b"), "--tokens and --authenticate: expected one"),
        (("--tokens", "/none"), "--tokens /none: No such file"),
        (("--tokens", "ODD"), "line 1: expected a token, its tenant"),
        (("--authenticate", "who"), "--authenticate who: expected package.module:name"),
        (("--authenticate", "json:x"), "--authenticate json:x: 'json' has no 'x'"),
        (("--authenticate", "nowhere:x"), "--authenticate nowhere:x: there is no module"),
        (("--authenticate", f"{HERE}:HERE"), "expected what takes a request, got"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    odd = str(write(tmp_path, "secret"))
    with pytest.raises(UsageError) as raised:
        served(*[odd if text == "ODD" else text for text in arguments])

    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
