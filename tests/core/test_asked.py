"""Keys that are a text, or a function that gives one."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio._core._asked import ask, check_asked


async def _async_key() -> str:
    return "k2"


@pytest.mark.parametrize(("given", "text"), [("k", "k"), (lambda: "k1", "k1"), (_async_key, "k2")])
async def test_a_key_is_a_text_or_what_a_function_gives(given: Any, text: str) -> None:
    check_asked("api_key", given)

    assert await ask("api_key", given) == text


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (lambda: None, TypeError, r"api_key\(\): expected a text, got NoneType"),
        (lambda: 7, TypeError, r"api_key\(\): expected a text, got int"),
        (lambda: "canary\n", ValueError, r"api_key\(\): expected printable ASCII characters"),
        (lambda: " ", ValueError, "printable"),
        (lambda: "clé-canary", ValueError, "printable"),
    ],
)
async def test_what_gives_no_key_is_refused_and_not_shown(
    given: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        await ask("api_key", given)

    assert "canary" not in str(caught.value)


def test_what_is_neither_is_refused() -> None:
    check_asked("api_key", None)
    with pytest.raises(TypeError, match="api_key: expected a text or a function, got int"):
        check_asked("api_key", 7)
