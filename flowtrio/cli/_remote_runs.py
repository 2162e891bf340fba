"""The runs of a server, asked for over HTTP; loaded by who asks for them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import quote

import attrs
import httpx
import msgspec

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.clients._body import body_of, unwind
from flowtrio.remote._reconnect import Backoff

from ._load import UsageError, sendable
from ._screen import printable

_PATIENCE: Final = 30.0
"""Seconds without a connection after which a run is given up."""
_MOST_EMPTY: Final = 100
"""Pages without a run, one after another, after which a list is given up."""
_LINES: Final = {"accept": "application/x-ndjson", "accept-encoding": "identity"}


_NOT_OURS: Final = "expected an answer of flowtrio's"


class _Lost(Exception):
    """The connection ended before the log did."""


class _Entry(msgspec.Struct):
    """A run, as far as a list of them depends on it."""

    run_id: str
    agent: str
    message: str
    created_at: Annotated[float, msgspec.Meta(ge=0, le=10**11)]
    ended_at: float | None = None
    usage: dict[str, Any] | None = None


class _Page(msgspec.Struct):
    items: list[_Entry]
    next: str | None


@attrs.frozen
class Server:
    """A server's runs, as one client may see them."""

    http: httpx.AsyncClient
    tenant: str | None
    """Whose, where an operator asks."""

    async def runs(self, wanted: Mapping[str, str], limit: int) -> list[dict[str, Any]]:
        """The newest runs, the newest first."""
        path, found, empty = "/operator/runs", list[dict[str, Any]](), 0
        params = {**wanted, **self._query, "limit": str(min(limit, 200))}
        while len(found) < limit:
            answer = await self._ask("GET", path, params=params)
            if answer.status_code in (403, 404) and path == "/operator/runs":
                if set(params) - {"limit"}:
                    raise UsageError("to choose runs, or whose, needs an operator's token")
                path = "/runs"
                continue
            page = _page(answer)
            found += page["items"]
            if page["next"] is None:
                break
            # A server that has looked at thousands of runs in vain gives an empty page, and goes on
            # behind it; what does so for ever is none.
            empty = 0 if page["items"] else empty + 1
            if empty == _MOST_EMPTY:
                raise UsageError(f"the server gave {empty} pages without a run: expected an end")
            params["before"] = page["next"]
        return found[:limit]

    async def cancel(self, run_id: str, reason: str | None) -> None:
        """Cancel a run."""
        path = f"/runs/{quote(run_id, safe='')}/cancel"
        body = {} if reason is None else {"reason": reason}
        _body(await self._ask("POST", path, params=self._query, json=body))

    async def events(self, run_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """A run's events to its DONE; a lost connection is made again, and goes on behind them."""
        after, backoff = -1, Backoff(_PATIENCE)
        while True:
            try:
                async with aclosing(self._read(run_id, after)) as events:
                    async for event in events:
                        if event["seq"] <= after:
                            # It would be told again and again.
                            words = f"it sent event {event['seq']} behind {after}"
                            raise UsageError(f"the server cannot tell the run: {words}")
                        backoff.begin_anew()
                        after = event["seq"]
                        yield event
                        if event["type"] == EventType.DONE:
                            return
            except _Lost as lost:
                if backoff.is_over or after < 0:
                    raise UsageError(f"lost the server: {lost}") from None
            await backoff.wait()

    async def _read(self, run_id: str, after: int) -> AsyncGenerator[dict[str, Any], None]:
        params = {"after": str(after), **self._query}
        path = f"/runs/{quote(run_id, safe='')}/events"
        try:
            async with self.http.stream("GET", path, params=params, headers=_LINES) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    _body(answer)
                # What is no whole line when the connection is lost has to come again.
                body, rest = body_of(answer), b""
                try:
                    async for piece in body:
                        *lines, rest = (rest + piece).split(b"\n")
                        for line in filter(bytes.strip, lines):
                            yield _event(line)
                finally:
                    await unwind(body, 0)
        except httpx.HTTPError as exc:
            raise _Lost(_words_of(exc)) from None
        raise _Lost("it ended the answer")

    @property
    def _query(self) -> dict[str, str]:
        return {} if self.tenant is None else {"tenant": self.tenant}

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self.http.request(method, path, **options)
        except httpx.HTTPError as exc:
            raise UsageError(f"can't reach {self.http.base_url}: {_words_of(exc)}") from None


def _words_of(exc: httpx.HTTPError) -> str:
    return printable(str(exc)) or type(exc).__name__


def _body(answer: httpx.Response) -> Any:
    """What a server has answered; `UsageError` if it has refused, or is none of ours."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and isinstance(body, dict):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    raise UsageError(_answers(answer, printable(error) if isinstance(error, str) else _NOT_OURS))


def _page(answer: httpx.Response) -> dict[str, Any]:
    page: dict[str, Any] = _body(answer)
    try:
        msgspec.convert(page, _Page)
    except msgspec.ValidationError:
        raise UsageError(_answers(answer, _NOT_OURS)) from None
    return page


def _answers(answer: httpx.Response, words: str) -> str:
    return f"the server answers {answer.status_code}: {words}"


def _event(line: bytes) -> dict[str, Any]:
    event: Any = None
    try:
        event = json.loads(line)
        msgspec.convert(event, AgentEvent)
    except ValueError:
        error = event.get("error") if isinstance(event, dict) else None
        words = printable(error) if isinstance(error, str) else "it sent what is no event"
        raise UsageError(f"the server cannot tell the run: {words}") from None
    found: dict[str, Any] = event
    return found


@asynccontextmanager
async def open_server(url: str, token: str | None, tenant: str | None) -> AsyncIterator[Server]:
    """Have a server's runs for the block; `UsageError` for an odd address or token."""
    if not _is_address(url):
        raise UsageError(f"--url {printable(url)}: expected http://host:port/")
    token = sendable(token)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    timeout = httpx.Timeout(10, read=60)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout) as http:
        yield Server(http, tenant)


def _is_address(url: str) -> bool:
    try:
        read = httpx.URL(url)
        # As it is looked up; what fails there is no error of the network's.
        host = read.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError):
        return False
    return read.scheme in ("http", "https") and bool(host)
