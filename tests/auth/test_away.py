"""While nobody can tell who asks, each way in says that it is worth another try, and no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import pytest

from flowtrio.abc import CannotAuthenticate, Request
from tests.serving.test_throttle import HANDSHAKE
from tests.support.site import site, talk
from tests.support.ws_peer import open_server, raw, read_all


class Away:
    """Cannot tell, for a while that it may know."""

    def __init__(self, retry_after: float | None) -> None:
        self.retry_after = retry_after

    def __call__(self, request: Request) -> str:
        raise CannotAuthenticate("secret words", retry_after=self.retry_after)


TOLD: Final = [(7.2, "8"), (None, None)]
ASKED: Final = [
    *(("GET", "/runs"), ("GET", "/sessions"), ("GET", "/runs/x/events"), ("GET", "/metrics")),
    *(("POST", "/chat/stream"), ("POST", "/runs/x/cancel"), ("GET", "/operator/runs")),
    *(("GET", "/nowhere"), ("DELETE", "/sessions/x")),
]


@pytest.mark.parametrize(("retry_after", "header"), TOLD)
async def test_every_address_is_refused_for_now(
    retry_after: Any, header: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(talk, authenticate=Away(retry_after)) as s:
        for method, path in ASKED:
            answer = await s.http.request(method, path)
            assert answer.status_code == 503, (method, path)
            assert answer.json()["code"] == "cannot_authenticate"
            assert answer.headers.get("retry-after") == header
            assert "secret" not in answer.text
        async with raw(SimpleNamespace(port=int(s.url.rpartition(":")[2]))) as stream:
            await stream.send_all(HANDSHAKE)
            handshake = await read_all(stream)

    check_handshake(handshake, header)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("retry_after", "header"), TOLD)
async def test_so_is_a_websocket_of_its_own_server(retry_after: Any, header: str | None) -> None:
    async with open_server(talk, authenticate=Away(retry_after)) as served, raw(served) as stream:
        await stream.send_all(HANDSHAKE)
        handshake = await read_all(stream)

    check_handshake(handshake, header)


def check_handshake(answer: bytes, header: str | None) -> None:
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert (f"\r\nretry-after: {header}\r\n".encode() in answer) == (header is not None)
    assert b"secret" not in answer
