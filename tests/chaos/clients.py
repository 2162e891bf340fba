"""Clients that start runs, read them and answer, through whatever gateway is there."""

from __future__ import annotations

import json
import random
import time
from typing import Any, Final

import attrs
import httpx
import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url

from tests.support.streaming import asking

from .answers import Word
from .processes import Processes

SESSIONS: Final = 6
_SOON: Final = 0.1
_LOST_WITHIN: Final = 3.0
"""Seconds after which nothing of what was stored is lost."""
_SAID_WITHIN: Final = 60.0
"""Seconds for which a command is tried: on a busy machine a gateway takes its time to be back."""
_PATIENCE: Final = 6.0
"""Seconds for which nothing may come before one asks another gateway."""


@attrs.define(eq=False)
class Run:
    """A run as its clients know it."""

    run_id: str
    session_id: str | None
    message: str
    logs: list[list[dict[str, Any]]] = attrs.field(factory=list)
    """What its readers saw."""
    words: list[Word] = attrs.field(factory=list)
    """What was said to it."""
    is_told: bool = False
    """Whether somebody said that it was started."""


@attrs.define(eq=False)
class Clients:
    """All clients of one run of the chaos."""

    processes: Processes
    rng: random.Random
    until: float
    runs: list[Run] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    http: httpx.AsyncClient = attrs.field(init=False)

    async def live(self, count: int) -> None:
        """Have so many clients start one run after another."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=_PATIENCE) as self.http:
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(self.client, number, nursery)

    async def client(self, number: int, late: trio.Nursery) -> None:
        turn = 0
        while time.monotonic() < self.until:
            turn += 1
            run_id = f"c{number}-{turn}"
            options = f"words={self.rng.randrange(1, 8)}"
            options += self.rng.choice(["", "", " approve", " deny", " contest"])
            options += self.rng.choice(["", "", " ask"])
            # A conversation keeps its newest messages: none may get so long that turns are dropped.
            session = self.rng.choice([None, f"s{self.rng.randrange(SESSIONS)}.{turn // 4}"])
            run = Run(run_id, session, f"{run_id} {options}")
            self.runs.append(run)
            async with trio.open_nursery() as nursery:
                for _ in range(2 if self.rng.random() < 0.3 else 1):
                    nursery.start_soon(self.start, run)
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(self.read, run, nursery)
                if self.rng.random() < 0.1:
                    nursery.start_soon(self.cancel, run)
            if self.processes.losses:
                late.start_soon(self.read_late, run)

    def gateway(self) -> str:
        return self.rng.choice(self.processes.gateways).address

    # Starting

    async def start(self, run: Run) -> None:
        """Start a run until somebody says that it was started."""
        start = self.start_by_socket if self.rng.random() < 0.5 else self.start_by_stream
        while True:
            with trio.move_on_after(_PATIENCE):
                if await start(run):
                    run.is_told = True
                    return
            await trio.sleep(_SOON)

    async def start_by_stream(self, run: Run) -> bool:
        """Read the first line of the answer, and leave."""
        body = {"message": run.message, "run_id": run.run_id, "session_id": run.session_id}
        try:
            async with asking(f"{self.gateway()}/chat/stream", body) as answer:
                if answer.status not in (0, 200, 204):
                    refused = await answer.event()
                    if refused is not None:
                        self.check(run, refused["code"])
                return answer.status in (200, 204)
        except OSError:
            return False

    async def start_by_socket(self, run: Run) -> bool:
        command = {
            "type": "message",
            "ref": 1,
            "message": run.message,
            "run_id": run.run_id,
            "session_id": run.session_id,
        }
        url = self.gateway().replace("http", "ws") + "/chat"
        is_told = False
        try:
            async with open_websocket_url(url, subprotocols=["flowtrio.v1"]) as socket:
                await socket.send_message(json.dumps(command))
                while not is_told:
                    frame = json.loads(await socket.get_message())
                    if frame["type"] == "rejected":
                        self.check(run, frame["code"])
                        break
                    is_told = frame["type"] == "accepted"
        except* (OSError, HandshakeError, ConnectionClosed):
            pass
        return is_told

    def check(self, run: Run, code: str) -> None:
        """Only what says that it may be tried again is an answer to a start."""
        if code == "unknown_run" and self.processes.losses:
            return
        if code not in ("store_failed", "shutting_down", "session_busy", "refused", "no_reply"):
            self.wrong.append(f"{run.run_id}: its start was refused: {code}")

    # Reading

    async def read(self, run: Run, answers: trio.Nursery) -> None:
        """Read a run to its end, by one gateway after another; answer what it asks meanwhile.

        Who goes on to another gateway is not asked again, so his answer is given to its end.
        """
        log: list[dict[str, Any]] = []
        run.logs.append(log)
        while not log or log[-1]["type"] != "done":
            after = log[-1]["seq"] if log else -1
            address = f"{self.gateway()}/runs/{run.run_id}/events?after={after}"
            with trio.move_on_after(1 + self.rng.random() * 8):
                try:
                    async with asking(address) as answer:
                        if answer.status == 410:
                            if not self.processes.losses:
                                self.wrong.append(f"{run.run_id}: a reader was told of a gap")
                                return
                            log.clear()
                        elif answer.status == 404 and run.is_told and self.processes.losses:
                            await self.start(run)
                        while answer.status == 200:
                            event = await answer.event()
                            if event is None or "seq" not in event:
                                if event and event.get("code") == "replay_gap":
                                    log.clear()
                                break
                            log.append(event)
                            answers.start_soon(self.answer, run, event)
                except OSError:
                    pass
            await trio.sleep(_SOON)

    async def read_late(self, run: Run) -> None:
        """Read it when all that can be lost of it is lost: it may have begun anew, and ask."""
        await trio.sleep(_LOST_WITHIN)
        async with trio.open_nursery() as nursery:
            await self.read(run, nursery)

    async def answer(self, run: Run, event: dict[str, Any]) -> None:
        """Do what the run waits for."""
        data = event["data"]
        if event["type"] == "approval_required":
            options = run.message.split()
            verdict = "deny" if "deny" in options else "approve"
            if "contest" in options:
                verdict = self.rng.choice(["approve", "deny"])
            await self.say(run, verdict, call_id=data["call_id"])
        elif event["type"] == "input_required":
            text = f"answer-{self.rng.randrange(10**9)}"
            await self.say(run, "answer", request_id=data["request_id"], text=text)

    async def say(self, run: Run, name: str, **arguments: Any) -> None:
        """Give a command, and remember what became of it, if it is known."""
        number = len(run.words)
        word = Word(name, arguments.get("text"), time.monotonic())
        run.words.append(word)
        if await self.command(run, name, **arguments):
            run.words[number] = attrs.evolve(word, accepted_at=time.monotonic())

    async def command(self, run: Run, name: str, **arguments: Any) -> bool:
        """Give a command until somebody says that it was accepted, or came too late."""
        with trio.move_on_after(_SAID_WITHIN):
            while True:
                with trio.move_on_after(_PATIENCE):
                    address = f"{self.gateway()}/runs/{run.run_id}/{name}"
                    try:
                        answer = await self.http.post(address, json=arguments)
                    except httpx.HTTPError:
                        answer = None
                    if answer is not None and answer.status_code in (200, 404):
                        return answer.status_code == 200
                await trio.sleep(_SOON)
        return False

    async def cancel(self, run: Run) -> None:
        await trio.sleep(self.rng.random())
        await self.command(run, "cancel")
