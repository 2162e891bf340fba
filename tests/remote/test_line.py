"""A line to a server: how it is opened, and how it tells that there is none."""

from __future__ import annotations

import base64
import hashlib
import ssl
from pathlib import Path

import pytest
import trio
import trustme

import flowtrio
from tests.serving.test_websocket import echo
from tests.support.remote import answering, refused
from tests.support.ws_peer import open_server


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "ws://"])
async def test_an_address_has_to_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="expected ws"):
        async with flowtrio.connect(url):
            raise AssertionError("not reached")


async def test_what_may_be_secret_in_an_address_is_not_told() -> None:
    words = await refused("http://ann:canary@127.0.0.1:1/chat?token=canary")

    assert words.startswith("can't reach ws://127.0.0.1:1/chat: ")
    assert "canary" not in words


@pytest.mark.parametrize("answer", [b"220 mail ready\r\n\r\n", b""])
async def test_what_is_no_websocket_server_is_told(answer: bytes) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with answering(handle) as url:
        words = await refused(url)

    assert words == f"can't reach {url}chat: it does not answer as a WebSocket server"


async def test_a_server_that_does_not_answer_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("flowtrio.remote._line._HANDSHAKE", 0.2)
    async with answering(hang) as url:
        words = await refused(url)

    assert words.endswith("no answer within 0.2 s")


async def test_wss_asks_for_a_certificate_that_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with open_server(echo, ssl_context=context) as served:
        url = served.url.replace("ws:", "wss:")
        words = await refused(url)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with flowtrio.connect(url) as remote:
            assert await remote.process("hi") == "hi"

    assert words.startswith(f"can't reach {url}: ")
    assert "certificate verify failed" in words


async def test_a_connection_that_answers_no_ping_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowtrio.remote._line._PING", 0.2)
    taken = 0

    async def fall_silent(stream: trio.SocketStream) -> None:
        nonlocal taken
        taken += 1
        if taken > 1:
            again.set()
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        [key] = [
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        ]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await trio.sleep_forever()

    again = trio.Event()
    async with answering(fall_silent) as url, flowtrio.connect(url):
        await again.wait()

    assert taken > 1


_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
