"""The seam of protocols: addresses of their own in an application, and what is done there.

A protocol is a value with routes. What it answers goes through a `Visit`, which is let in by the
same rules as everybody, under the same limits, of one tenant; so an adapter parses requests, says
what is to be done, and gives the mapper that the run is told by.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs

from flowtrio._agents._given import ForRun
from flowtrio._agents._tools import Tool
from flowtrio._core._exceptions import LimitExceeded, RunExists
from flowtrio._run._controls import run_of
from flowtrio.abc import Request
from flowtrio.serving._access import Refused
from flowtrio.serving.commands._apply import apply
from flowtrio.serving.commands._clients import Hosting, Refusal, asking_the_store
from flowtrio.serving.commands._letting_in import check_start
from flowtrio.wire._frames import BadFrame, Control
from flowtrio.wire._json import check_depth, decode_json

from ._answers import Answer
from ._door import Door
from ._following import follow, gather
from ._request import Exchange, refused
from ._segments import Standing, Waits

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio.abc import RunHeader

Handler: TypeAlias = "Callable[..., Awaitable[None]]"
"""Answers a `Visit`; what stands in the address for ``{}`` comes behind it, as texts."""


@attrs.frozen
class ProtocolRoute:
    """An address, and what is done there."""

    method: str
    path: str
    """Such as ``/v1/responses/{}``: each ``{}`` is one piece that is not empty."""
    answer: Handler

    def match(self, path: str) -> list[str] | None:
        """What stands for each ``{}``; None where *path* is another."""
        ours, theirs = self.path.split("/"), path.split("/")
        if len(ours) != len(theirs):
            return None
        found = []
        for own, given in zip(ours, theirs, strict=True):
            if own == "{}" and given:
                found.append(given)
            elif own != given:
                return None
        return found


class HTTPProtocol(Protocol):
    """Somebody's protocol over HTTP."""

    @property
    @abstractmethod
    def routes(self) -> Sequence[ProtocolRoute]:
        """Its addresses, below the application's root."""

    @abstractmethod
    def refuse(self, status: int, code: str, error: str) -> Any:
        """Its form of a refusal, as JSON."""


@attrs.frozen
class Visit:
    """One request at a protocol's address: what it asks, and what may be done for it."""

    hosting: Hosting
    exchange: Exchange
    tenant_id: str
    _door: Door

    @property
    def request(self) -> Request:
        """The request."""
        return self.exchange.request

    @property
    def agents(self) -> Mapping[str, str]:
        """The names of the agents that can be asked for, each with what it is for."""
        return self.hosting.service.agents

    def check_site(self) -> None:
        """Refuse what another site's page makes a browser send; `read_json` does it too.

        Raises:
          Refused: it does.

        """
        self._door.check_site(self.request)

    async def read_json(self) -> dict[str, Any]:
        """The request's body.

        Raises:
          Refused: it is of another site, larger than a message with parts may be, or no JSON
            object.
          Left: the client has gone.

        """
        self.check_site()
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip()
        if kind.lower() != "application/json":
            raise Refused(415, "expected a request in application/json")
        limits = self.hosting.limits
        body = await self.exchange.read_body(limits.whole_message, limits.handshake, limits.message)
        try:
            value = decode_json(body)
            check_depth(value, limits.json_depth)
        except ValueError:
            raise Refused(400, "expected JSON in the request's body") from None
        if not isinstance(value, dict):
            raise Refused(400, "expected a JSON object in the request's body")
        return value

    # Runs

    async def answer(
        self,
        message: str | Sequence[Part],
        answer: Callable[[str], Answer],
        *,
        session_id: str | None,
        run_id: str | None = None,
        is_whole: bool = False,
        **options: Any,
    ) -> tuple[str, Refusal | None]:
        """Start a run and follow it.

        Args:
          message: What the user says.
          answer: Makes the answer of the run's id.
          session_id: The conversation; None for none.
          run_id: The run's id; None for a new one.
          is_whole: Whether the answer is only fed, for a reply that is sent when all is known.
          options: ``resume_window`` (the server's by default), ``agent``, ``attended`` (False for
            nobody who could be asked), and those of `Orchestrator.process_stream`: ``app limits
            history tools model_settings``.

        Returns:
          The run's id, and with *is_whole* why its log could not be read, if so.

        Raises:
          Refused: the server stops, or the conversation or the tenant is busy.
          Left: the client has gone.

        """
        hosting = self.hosting
        if hosting.is_draining:
            raise Refused(503, "the server is shutting down")
        starting = hosting.starting(self.tenant_id, message, session_id, run_id, **options)
        try:
            await check_start(hosting, self.tenant_id, run_id)
            async with AsyncExitStack() as started:
                run_id = (await started.enter_async_context(starting)).run_id
                tell = gather if is_whole else follow
                refusal = await tell(
                    hosting, self.exchange, self.tenant_id, run_id, answer(run_id), started
                )
        except LimitExceeded as exc:
            raise Refused(429, str(exc), exc.code, exc.retry_after) from None
        except RunExists as exc:
            raise Refused(409, str(exc), exc.code) from None
        return run_id, refusal

    async def follow(self, run_id: str, answer: Answer, held: AsyncExitStack | None = None) -> None:
        """Answer with what *answer* tells of a run's log, or say why not; *held* is let go then."""
        await follow(self.hosting, self.exchange, self.tenant_id, run_id, answer, held)

    async def gather(
        self, run_id: str, answer: Answer, held: AsyncExitStack | None = None
    ) -> Refusal | None:
        """Feed *answer* a run's log and send nothing; give why it cannot be read, if so.

        Raises:
          Left: the client has gone meanwhile.

        """
        return await gather(self.hosting, self.exchange, self.tenant_id, run_id, answer, held)

    def seated(self, run_id: str) -> AbstractContextManager[None]:
        """Have a run that goes on here not count as left in a block.

        For one that waits, is answered and then followed; entered into what *held* is.
        """
        return self.hosting.seated(self.tenant_id, run_id)

    async def waits_of(self, run_id: str) -> Waits:
        """What a run that goes on here waits for, as its log tells that readers may see.

        Raises:
          Refused: no run of this id goes on here, or its log cannot be read.
          Left: the client has gone meanwhile.

        """
        standing = Standing(await self.last_of(run_id))
        if refusal := await self.gather(run_id, standing):
            raise refused(refusal)
        return standing.waits

    async def last_of(self, run_id: str) -> int:
        """The newest event that readers may see of a run that goes on, by its number.

        What is done to a run here next, without a wait, is told behind it.

        Raises:
          Refused: no run of this id goes on.

        """
        hosted = self.hosting.service.recorder.runs.get((self.tenant_id, run_id))
        if hosted is not None and not hosted.is_apart:
            return hosted.last
        if not await self.is_live(run_id):
            raise unknown_run()
        with asking_the_store():
            return await self.hosting.service.recorder.newest(self.tenant_id, run_id)

    def tools_of(self, run_id: str) -> frozenset[str]:
        """The names of the tools that a run which goes on here was given for itself."""
        hosted = self.hosting.service.recorder.runs.get((self.tenant_id, run_id))
        given = None if hosted is None else run_of(hosted.stream).info.given
        tools = given.tools if isinstance(given, ForRun) else ()
        return frozenset(tool.name for tool in tools if isinstance(tool, Tool))

    async def header_of(self, run_id: str) -> RunHeader | None:
        """What the store knows of a run; None if it knows none."""
        with asking_the_store():
            return await self.hosting.orchestrator.store.header(self.tenant_id, run_id)

    async def is_live(self, run_id: str) -> bool:
        """Whether a run goes on: here, or where processes share a store, in any of them."""
        hosted = self.hosting.service.recorder.runs.get((self.tenant_id, run_id))
        if self.hosting.service.cluster is None or (hosted is not None and not hosted.is_apart):
            return hosted is not None and not hosted.is_over and not hosted.has_done
        header = await self.header_of(run_id)
        return header is not None and header.ended_at is None

    async def runs_of(self, session_id: str) -> Sequence[RunHeader]:
        """The runs of a conversation that the store knows, oldest first."""
        with asking_the_store():
            return await self.hosting.orchestrator.store.list(self.tenant_id, session_id)

    async def live_run_of(self, session_id: str) -> str | None:
        """The newest run of a conversation that goes on."""
        cluster = self.hosting.service.cluster
        if cluster is not None:
            with asking_the_store():
                line = await cluster.store.line(self.tenant_id, session_id)
            return line[-1] if line else None
        runs = self.hosting.service.recorder.runs.values()
        found = [
            run.run_id
            for run in runs
            if (run.header.tenant_id, run.header.session_id) == (self.tenant_id, session_id)
            and not run.is_over
            and not run.has_done
        ]
        return found[-1] if found else None

    async def forget_run(self, run_id: str) -> bool:
        """Delete a run's log; one that goes on is cancelled first. False if there is none."""
        with asking_the_store():
            return await self.hosting.service.forget_run(self.tenant_id, run_id)

    async def forget_session(self, session_id: str) -> None:
        """Delete a conversation and its logs; what is under way in it is cancelled first."""
        with asking_the_store():
            await self.hosting.service.forget(self.tenant_id, session_id)

    async def control(self, run_id: str, command: Control) -> None:
        """Do to a run what a command asks; whether it took effect is seen in its log.

        Raises:
          Refused: no run of this id goes on.
          BadFrame: what is given does not fit.

        """
        stream = self.hosting.find(self.tenant_id, run_id)
        if stream is not None:
            return apply(stream, command, self.hosting.limits)
        try:
            return await self.hosting.control(self.tenant_id, command)
        except BadFrame as exc:
            if exc.code == "unknown_run":
                raise unknown_run() from None
            raise


def unknown_run() -> Refused:
    """No run of the asked id goes on here; also where it is another tenant's."""
    return Refused(404, "no run of this id is under way", "unknown_run")
