"""``flowtrio runs`` against a server: list, show, follow, cancel, log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from flowtrio import RunContext
from flowtrio.cli import _runs
from flowtrio.cli._check import check_file
from flowtrio.cli._load import UsageError
from flowtrio.cli._main import main
from flowtrio.cli._remote_runs import Server, open_server
from flowtrio.cli._runs import table
from tests.support.site import Site, site


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLOWTRIO_URL", "FLOWTRIO_TOKEN", "FLOWTRIO_OPERATOR_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_runs, "_QUIET", 0.2)


def who(request: Any) -> str | None:
    return {"Bearer a": "ann", "Bearer b": "bob"}.get(request.headers.get("authorization", ""))


async def agent(ctx: RunContext, message: str) -> str:
    async with ctx.message() as out:
        await out.write(f"You said {message}")
    if message == "wait":
        await trio.sleep_forever()
    if message == "fail":
        raise ValueError("no")
    return message


@asynccontextmanager
async def opened() -> AsyncIterator[Site]:
    async with site(agent, authenticate=who, operator_token="op", drain=0) as s:
        for run_id, message, user in [("r1", "hi\x1b[2J", "a"), ("r2", "fail", "b")]:
            await say(s, run_id, message, user)
        yield s


async def say(s: Site, run_id: str, message: str, user: str) -> None:
    headers = {"authorization": f"Bearer {user}"}
    body = {"message": message, "run_id": run_id}
    await s.follow("POST", "/chat/stream", json=body, headers=headers)


@asynccontextmanager
async def live(s: Site) -> AsyncIterator[None]:
    """A run of Ann's that goes on."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, s, "r3", "wait", "a")
        # Of those before it one may not be put away yet.
        while ("ann", "r3") not in s.orchestrator._recorder.runs:
            await trio.sleep(0.01)
        yield
        nursery.cancel_scope.cancel()


async def run(s: Site, *arguments: str, token: str = "a") -> int:
    given = ["runs", arguments[0], "--url", s.url, "--token", token, *arguments[1:]]
    return await trio.to_thread.run_sync(main, given)


# What is seen


async def test_the_newest_runs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    async with opened() as s:
        assert await run(s, "list") == 0
    head, line = capsys.readouterr().out.splitlines()

    assert head.split() == ["began", "status", "run", "agent", "took", "cost", "message"]
    assert line.split()[2:5] == ["completed", "r1", "agent"]
    assert "hi�[2J" in line, "what others wrote does not reach the terminal as it is"


async def test_operators_see_all_and_choose(capsys: pytest.CaptureFixture[str]) -> None:
    async with opened() as s:
        assert await run(s, "list", token="op") == 0
        everybody = capsys.readouterr().out
        for options in (["--status", "error"], ["--tenant", "bob"], ["--code", "agent_failed"]):
            assert await run(s, "list", *options, "--since", "1h", token="op") == 0
            head, line = capsys.readouterr().out.splitlines()
            assert "tenant" in head
            assert line.split()[2:6] == ["error", "(agent_failed)", "bob", "r2"]
        assert await run(s, "list", "--agent", "x", "--json", token="op") == 0
        assert capsys.readouterr().out == ""
        assert await run(s, "list", "--json", "--limit", "1", token="op") == 0
        [one] = capsys.readouterr().out.splitlines()

    assert [line.split()[-3] for line in everybody.splitlines()[1:]]
    assert "ann" in everybody
    assert json.loads(one)["run_id"] == "r2"


async def test_pages_follow_one_another() -> None:
    async with opened() as s:
        for number in range(205):
            await say(s, f"x{number}", "hi", "a")
        async with open_server(s.url, "a", None) as server:
            found = await server.runs({}, 203)

    assert [entry["run_id"] for entry in found] == [f"x{n}" for n in range(204, 1, -1)]


async def test_a_run_is_shown_as_a_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    async with opened() as s, live(s):
        assert await run(s, "show", "r2", token="b") == 0
        ended = capsys.readouterr().out
        assert await run(s, "show", "r3") == 0
        going = capsys.readouterr().out
        assert await run(s, "show", "r1", "--tenant", "ann", token="op") == 0
        theirs = capsys.readouterr().out

    assert "done error" in ended
    assert "it goes on: flowtrio runs follow r3" in going
    assert "run 'hi\\x1b[2J'" in theirs
    assert "\x1b" not in theirs


async def test_a_run_is_followed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    async with opened() as s, live(s):
        statuses = [await run(s, "follow", name, token=t) for name, t in (("r1", "a"), ("r2", "b"))]
        told = capsys.readouterr()
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                statuses.append(await run(s, "follow", "r3", "--events"))

            nursery.start_soon(follow)
            followed = ""
            while "message_chunk" not in followed:
                await trio.sleep(0.01)
                followed += capsys.readouterr().out
            assert await run(s, "cancel", "r3", "--reason", "enough") == 0
        # Two threads write there, in no order.
        followed = (followed + capsys.readouterr().out).replace("r3: told to end", "")
        last = json.loads(list(filter(None, followed.splitlines()))[-1])

    assert statuses == [0, 1, 130]
    assert "You said hi�[2J" in told.out
    assert "error (agent_failed)" in told.err
    assert last["data"]["reason"] == "enough"


async def test_a_log_is_taken_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    async with opened() as s, live(s):
        assert await run(s, "log", "r1", "-o", str(path)) == 0
        assert await run(s, "log", "r3") == 0
        so_far = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert check_file(str(path)) == 0
    assert [event["seq"] for event in so_far] == list(range(len(so_far)))
    assert so_far[-1]["type"] != "done"


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "token", "words"),
    [
        (["show", "nowhere"], "a", "404: no run of this id is known"),
        (["show", "r1"], "b", "404: no run of this id is known"),
        (["follow", "r1", "--tenant", "ann"], "b", "404: nothing of this name is known"),
        (["cancel", "r1"], "a", "404: no run of this id is under way"),
        (["list"], "wrong", "401: not authenticated"),
        (["list", "--status", "error"], "a", "needs an operator's token"),
        (["list", "--tenant", "bob"], "a", "needs an operator's token"),
        (["list", "--status", "odd"], "op", "400: status: expected some of"),
        (["list", "--since", "soon"], "op", "--since: expected a time such as"),
        (["log", "r1", "-o", "/no/where"], "a", "can't write /no/where: No such file"),
    ],
)
async def test_what_cannot_be_is_told_in_a_line(
    arguments: list[str], token: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened() as s:
        assert await run(s, *arguments, token=token) == 2
    told = capsys.readouterr().err

    assert words in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/", "can't reach http://127.0.0.1:1"),
        ("ws://127.0.0.1/", "--url ws://127.0.0.1/: expected http://host:port/"),
        ("http://[::1", "--url http://[::1: expected http://host:port/"),
        ("http://xn--/", "--url http://xn--/: expected http://host:port/"),
        ("http://.../", "--url http://.../: expected http://host:port/"),
    ],
)
@pytest.mark.parametrize("verb", [["list"], ["cancel", "r"]])
def test_a_server_that_is_not_there(
    url: str, words: str, verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", *verb, "--url", url]) == 2
    assert words in capsys.readouterr().err


async def test_token_and_address_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened() as s:
        monkeypatch.setenv("FLOWTRIO_URL", s.url)
        monkeypatch.setenv("FLOWTRIO_TOKEN", "a")
        assert await trio.to_thread.run_sync(main, ["runs", "list"]) == 0
        own = capsys.readouterr().out
        monkeypatch.setenv("FLOWTRIO_OPERATOR_TOKEN", "op")
        assert await trio.to_thread.run_sync(main, ["runs", "list"]) == 0

    assert "tenant" not in own
    assert "tenant" in capsys.readouterr().out


def played(*answers: Any) -> Server:
    """A server that answers so."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        given = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(given, Exception):
            raise given
        return httpx.Response(200, content=given.replace("AFTER", request.url.params["after"]))

    http = httpx.AsyncClient(base_url="http://x/", transport=httpx.MockTransport(answer))
    return Server(http, None)


def line(seq: int, type: str = "custom", **data: Any) -> str:
    event = {"type": type, "data": data, "seq": seq, "run_id": "r", "agent": "root"}
    return json.dumps({**event, "timestamp": 0.0}) + "\n"


async def read(server: Server) -> list[int]:
    return [event["seq"] async for event in server.events("r")]


async def test_a_lost_connection_is_made_again(autojump_clock: Any) -> None:
    lost = httpx.ReadError("reset")
    server = played(line(0), lost, "\n\n" + line(1, after="AFTER"), line(2, "done"))

    assert await read(server) == [0, 1, 2]


async def test_a_server_that_stays_away_is_given_up(autojump_clock: Any) -> None:
    with pytest.raises(UsageError, match="lost the server: reset"):
        await read(played(line(0), httpx.ReadError("reset")))
    with pytest.raises(UsageError, match="lost the server: it ended the answer"):
        await read(played(""))


@pytest.mark.parametrize("told", [line(0) + line(0), line(0)])
async def test_a_server_that_tells_the_same_again_is_left(told: str, autojump_clock: Any) -> None:
    with pytest.raises(UsageError, match="it sent event 0 behind 0"):
        await read(played(told))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("<html>\n", "it sent what is no event"),
        ('{"seq": 1}\n', "it sent what is no event"),
        ('{"type": "rejected", "error": "the log\\u001b is gone"}\n', "the log� is gone"),
    ],
)
async def test_what_is_no_event_is_told(told: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await read(played(told))


@pytest.mark.parametrize("token", ["caf\xe9", "a\nb", "a\x1bb"])
def test_a_token_that_cannot_be_sent_is_told_and_not_shown(
    token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "list", "--url", "http://127.0.0.1:1/", "--token", token]) == 2
    assert capsys.readouterr().err == "flowtrio: --token: expected printable ASCII text\n"


@pytest.mark.parametrize(
    "text",
    [
        *("<html>", "[]", "{}", '{"items": 5, "next": null}', '{"items": [5], "next": null}'),
        *('{"items": [{}], "next": null}', '{"items": [], "next": 5}'),
        '{"items": [{"run_id": "r", "agent": "a", "message": "m", "created_at": 1e300}], '
        '"next": "x"}',
    ],
)
async def test_what_is_no_server_of_ours_is_told(text: str) -> None:
    http = httpx.AsyncClient(
        base_url="http://x/",
        transport=httpx.MockTransport(lambda request: httpx.Response(200, text=text)),
    )
    with pytest.raises(UsageError, match="answers 200: expected an answer of flowtrio's"):
        await Server(http, None).runs({}, 5)


async def test_a_list_without_end_is_given_up_and_one_with_gaps_is_not() -> None:
    entry = {"run_id": "r", "agent": "a", "message": "m", "created_at": 0.0}
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("before"))
        # Now and then there is a run; then no more, and no end either.
        items = [entry] if len(asked) in (99, 180) else []
        return httpx.Response(200, json={"items": items, "next": f"p{len(asked)}"})

    def server() -> Server:
        asked.clear()
        transport = httpx.MockTransport(answer)
        return Server(httpx.AsyncClient(base_url="http://x/", transport=transport), None)

    assert len(await server().runs({}, 2)) == 2
    assert asked[-2:] == ["p178", "p179"]
    with pytest.raises(UsageError, match="gave 100 pages without a run"):
        await server().runs({}, 3)
    assert len(asked) == 280


def test_ctrl_c_leaves_a_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(_runs, "_with_server", interrupted)
    run: Any = partial(main, ["runs", "follow", "r"])

    assert run() == 130


def test_a_run_that_goes_on_has_no_end_in_the_list() -> None:
    entry = {"created_at": 0.0, "ended_at": None, "status": None, "run_id": "r", "agent": "a"}
    _, row = table([{**entry, "message": "m\nn"}])

    assert row.split()[2:] == ["live", "r", "a", "m", "n"]
