from __future__ import annotations

import sys

import pytest

from flowtrio import RedisConversations, RedisStore
from flowtrio.abc import RecoverableConversations, SharedStore
from flowtrio.stores.redis._url import Place, read_url


def place(**given: object) -> Place:
    usual: dict[str, object] = {"host": "h", "port": 6379, "socket": None, "has_tls": False}
    usual |= {"user": None, "password": None, "database": 0, "prefix": "ft:", "ca": None}
    return Place(**(usual | given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", place()),
        ("valkey://h:7/3", place(port=7, database=3)),
        ("rediss://u:p%40ss@h/", place(has_tls=True, user="u", password="p@ss")),
        ("valkeys://:p@h?ca=/etc/ca.pem", place(has_tls=True, password="p", ca="/etc/ca.pem")),
        ("redis://h?prefix=a:b:&database=2", place(prefix="a:b:", database=2)),
        ("redis://[::1]:6380", place(host="::1", port=6380)),
        ("unix:///run/a%20b.sock?database=4", place(host="", socket="/run/a b.sock", database=4)),
    ],
)
def test_a_url_says_where_and_who(url: str, expected: Place) -> None:
    assert read_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret@h",
        "redis://u:secret@",
        "redis://u:secret@h/x",
        "redis://u:secret@h/-1",
        "redis://u:secret@h:99999",
        "redis://u:secret@h?secrets=1",
        # Passwords as they come: each of these characters ends something in a URL.
        "redis://:p?u:secret@h",
        "redis://:p#u:secret@h",
        "redis://:p/u:secret@h",
        "redis://:p[u:secret]@h",
        "redis://:p[u:secret@h",
        "redis://:p\N{ACCOUNT OF}u:secret@h",
        # It would be somebody else who asks, or in the open.
        "redis://u@h",
        "redis://u:secret@h?ca=/etc/ca.pem",
        "secret",
    ],
)
def test_another_one_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        RedisStore(url)

    assert "u:secret" not in str(caught.value)


def test_nothing_shows_the_password() -> None:
    url = "rediss://u:secret@h:7/3"
    shown = [repr(RedisStore(url)), repr(RedisConversations(url)), repr(read_url(url))]

    assert "secret" not in "".join(shown)
    assert shown[:2] == ["<RedisStore h:7>", "<RedisConversations h:7>"]


@pytest.mark.parametrize("kind", [RedisStore, RedisConversations])
def test_what_is_kept_is_kept_for_a_while(kind: type) -> None:
    for keep in (0, -1):
        with pytest.raises(ValueError, match="expected a number above 0, or None"):
            kind("redis://h", keep=keep)


@pytest.mark.parametrize("kind", [RedisStore, RedisConversations])
async def test_who_has_no_client_is_told_how_to_get_one(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "glide", None)
    store = kind("redis://h")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'flowtrio\[redis\]'"):
        await store.delete("t", session_id="s")
    await store.aclose()


def test_they_are_known_by_their_methods() -> None:
    assert isinstance(RedisStore("redis://h"), SharedStore)
    assert isinstance(RedisConversations("redis://h"), RecoverableConversations)
