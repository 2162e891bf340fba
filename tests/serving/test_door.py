"""Who may come in over HTTP: sites, origins and addresses."""

from __future__ import annotations

from typing import Any

from flowtrio import (
    Orchestrator,
)
from flowtrio.asgi import create_app
from tests.support.site import TOKEN, Talker, site, talk


async def test_another_site_starts_nothing() -> None:
    agent = Talker()
    async with site(agent, origins=["https://friend.example"]) as s:
        image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        evil = {"origin": "https://evil.example"}
        rebound = {"host": "evil.example"}
        neighbour = {**image, "sec-fetch-site": "same-site"}
        for headers in (image, evil, rebound, {**image, **evil}, neighbour):
            for method in ("GET", "POST"):
                response = await s.http.request(
                    method, "/chat/stream?message=a", headers=headers, json={"message": "a"}
                )
                assert response.status_code == 403, headers
        posted = await s.http.post("/runs/x/cancel", headers=image)
        erased = await s.http.delete("/sessions/x", headers=image)

    assert (posted.status_code, erased.status_code) == (403, 403)
    assert agent.begun == 0


async def test_allowed_origins_may_read_and_others_get_no_such_headers() -> None:
    friend = {"origin": "https://friend.example", "sec-fetch-site": "cross-site"}
    async with site(origins=["https://friend.example"]) as s:
        asked = await s.http.options("/chat/stream", headers=friend)
        other = await s.http.options("/chat/stream", headers={"origin": "https://evil.example"})
        answer = await s.http.get("/chat/stream?message=a", headers=friend)
        own = await s.http.get("/health")

    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "https://friend.example"
    assert "last-event-id" in asked.headers["access-control-allow-headers"]
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers
    assert answer.status_code == 200
    assert answer.headers["vary"] == "origin"
    assert "access-control-allow-origin" not in own.headers


async def test_an_address_open_to_others_needs_a_token() -> None:
    async def ask(**options: Any) -> int:
        app = create_app(Orchestrator(agents=[talk]), **options)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/runs/x/events",
            "headers": [(b"host", b"agents.example")],
            "server": ("192.0.2.1", 80),
            "scheme": "http",
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return int(sent[0]["status"])

    assert await ask() == 403
    assert await ask(token=TOKEN) == 401
    assert await ask(insecure=True) == 404
