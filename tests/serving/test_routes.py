"""Which address is whose: what needs no token, and where the page is."""

from __future__ import annotations

import pytest

from flowtrio import (
    Orchestrator,
)
from flowtrio.asgi import create_app
from flowtrio.serving.http._page import takes_gzip
from tests.support.asgi import exchange
from tests.support.site import TOKEN, Talker, site, talk


async def test_a_token_is_asked_for_everywhere_but_at_the_page() -> None:
    agent = Talker()
    bearer = {"authorization": f"Bearer {TOKEN}"}
    async with site(agent, token=TOKEN, resume_window=0.01) as s:
        for path in ("/chat/stream?message=a", "/runs/x/events", "/sessions/x", "/metrics"):
            for headers in ({}, {"authorization": "Bearer wrong"}):
                refused = await s.http.get(path, headers=headers)
                assert refused.status_code == 401, path
                assert refused.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in refused.text
        assert (await s.http.get("/runs/x/events", headers=bearer)).status_code == 404
        assert (await s.http.get(f"/runs/x/events?token={TOKEN}")).status_code == 404
        assert (await s.http.get("/metrics", headers=bearer)).status_code == 200
        for path in ("/", "/app.js", "/health", "/ready"):
            assert (await s.http.get(path)).status_code == 200

    assert agent.begun == 0


async def test_the_page_and_its_files_come_under_a_strict_policy() -> None:
    async with site() as s:
        page = await s.http.get("/")
        script = await s.http.get("/flowtrio.js")
        same = await s.http.get("/flowtrio.js", headers={"if-none-match": script.headers["etag"]})
        head = await s.http.head("/flowtrio.js")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["x-content-type-options"] == "nosniff"
    assert (same.status_code, same.content) == (304, b"")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == script.headers["content-length"]


async def test_the_page_is_compressed_for_those_who_take_that() -> None:
    gzipped, plain = {"accept-encoding": "br, gzip;q=0.8"}, {"accept-encoding": "identity"}
    async with site(origins=["https://a.example"]) as s:
        small = await s.http.get("/app.js", headers=gzipped)
        large = await s.http.get("/app.js", headers=plain)
        again = [
            (await s.http.get("/app.js", headers={**accepted, "if-none-match": etag})).status_code
            for etag in (small.headers["etag"], large.headers["etag"])
            for accepted in (gzipped, plain)
        ]
        other = await s.http.get("/app.js", headers={"origin": "https://a.example"})
        told = await s.http.get("/sessions", headers=gzipped)

    assert small.content == large.content
    assert int(small.headers["content-length"]) < int(large.headers["content-length"]) / 2
    assert (small.headers["content-encoding"], small.headers["vary"]) == ("gzip", "accept-encoding")
    assert ("content-encoding" in large.headers, large.headers["vary"]) == (
        *(False, "accept-encoding"),
    )
    assert again == [304, 200, 200, 304], "each form has a name of its own"
    assert other.headers["vary"] == "accept-encoding, origin"
    assert "content-encoding" not in told.headers, "what is a tenant's is never compressed"


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("br, GZIP ;q=0.5", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("gzip;q=0.001", True),
        ("br;q=1.0, deflate", False),
        ("*", False),
        (";;,=,gzip;;q", True),
    ],
)
def test_who_takes_what_is_compressed(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


async def test_there_is_nothing_without_a_name() -> None:
    async with site() as s:
        found = [
            (await s.http.request(method, path)).status_code
            for method, path in (
                ("GET", "/sessions/"),
                ("DELETE", "/sessions/"),
                ("GET", "/runs//events"),
                ("POST", "/runs//cancel"),
            )
        ]

    assert found == [404] * 4


async def test_where_it_is_mounted_the_page_is_below_a_slash() -> None:
    app = create_app(Orchestrator(agents=[talk]))
    [start, _] = await exchange(app, "/base/agents", root_path="/base/agents")

    assert start["status"] == 307
    assert (b"location", b"agents/") in start["headers"]
