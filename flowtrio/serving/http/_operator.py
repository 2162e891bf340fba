"""What operators see: the runs of all tenants, and what those wait for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from flowtrio._core._events import AgentEvent, AgentStatus
from flowtrio.serving._access import Refused
from flowtrio.serving.commands._clients import Hosting, asking_the_store

from ._lists import limit_of, list_runs, newest, page_of
from ._overview import Glance, Overview
from ._request import Exchange

if TYPE_CHECKING:
    from flowtrio.abc import RunHeader

_AT_ONCE: Final = 200
"""Runs that the store is asked for at once."""
_LOOKED_AT: Final = 2_000
"""Runs that are looked at for one page; who wants to look further asks for the next one."""

_ENDED: Final = frozenset({AgentStatus.COMPLETED, AgentStatus.ERROR, AgentStatus.CANCELLED})
_LIVE: Final = frozenset(AgentStatus) - _ENDED


@attrs.frozen(kw_only=True)
class RunFilter:
    """Which runs are asked for."""

    statuses: frozenset[AgentStatus]
    """Empty for all."""
    tenant: str | None
    agent: str | None
    code: str | None
    since: float
    """When it was created at the earliest; UTC, seconds."""
    until: float
    """When it was created at the latest."""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> RunFilter:
        """Read it from a request's query.

        Raises:
          Refused: it cannot be read.

        """
        return cls(
            statuses=_statuses(query.get("status", "")),
            tenant=query.get("tenant"),
            agent=query.get("agent"),
            code=query.get("code"),
            since=_time("since", query, -math.inf),
            until=_time("until", query, math.inf),
        )

    @property
    def is_of_live(self) -> bool:
        """Whether only runs that go on are asked for."""
        return bool(self.statuses) and self.statuses <= _LIVE

    def may_fit(self, header: RunHeader) -> bool:
        """Whether it could be one of them, by what is known without its log."""
        if header.status is None:
            may_be = not self.statuses or bool(self.statuses & _LIVE)
        else:
            may_be = not self.statuses or header.status in self.statuses
        has_failed = header.status in (None, AgentStatus.ERROR)
        return (
            may_be
            and self.tenant in (None, header.tenant_id)
            and self.agent in (None, header.agent)
            and (self.code is None or has_failed)
            and self.since <= header.created_at <= self.until
        )

    def fits(self, glance: Glance) -> bool:
        """Whether one that may be is one of them."""
        is_so = not self.statuses or glance.status in self.statuses
        return is_so and self.code in (None, glance.code)


@attrs.frozen
class OperatorEndpoints:
    """What is told to operators, and to nobody else."""

    _hosting: Hosting
    _overview: Overview = attrs.field(
        default=attrs.Factory(lambda self: Overview(self._hosting), takes_self=True), init=False
    )

    async def runs(self, exchange: Exchange) -> None:
        """List runs of all tenants."""
        query = exchange.request.query
        wanted = RunFilter.read(query)
        if wanted.is_of_live:
            entries = [
                entry
                for header in await self._live()
                if (entry := await self._entry(header, wanted)) is not None
            ]
            page = page_of(entries, "created_at", "run_id", query)
        else:
            page = await self._page(wanted, limit_of(query), query.get("before"))
        return await exchange.answer_json(200, page)

    async def _page(self, wanted: RunFilter, limit: int, place: str | None) -> dict[str, Any]:
        """The newest of those that are wanted, and where the next page begins."""
        items: list[dict[str, Any]] = []
        store = self._hosting.orchestrator.store
        for _ in range(_LOOKED_AT // _AT_ONCE):
            runs = await newest(store, wanted.tenant, place, _AT_ONCE)
            for number, run in enumerate(runs, 1):
                place = run.place
                if (entry := await self._entry(run.header, wanted)) is not None:
                    items.append(entry)
                    if len(items) == limit:
                        is_last = number == len(runs) < _AT_ONCE
                        return {"items": items, "next": None if is_last else place}
            is_past = all(run.header.created_at < wanted.since for run in runs)
            if len(runs) < _AT_ONCE or is_past:
                return {"items": items, "next": None}
        return {"items": items, "next": place}

    async def _live(self) -> Sequence[RunHeader]:
        with asking_the_store():
            return await self._hosting.orchestrator.store.live()

    async def _entry(self, header: RunHeader, wanted: RunFilter) -> dict[str, Any] | None:
        """What is told of a run; None for one that is not wanted."""
        if not wanted.may_fit(header):
            return None
        glance = await self._overview.look(header)
        if not wanted.fits(glance):
            return None
        [entry] = list_runs([header])
        return {
            **entry,
            "tenant_id": header.tenant_id,
            "ended_at": glance.ended_at,
            "status": str(glance.status),
            "code": glance.code,
            "usage": glance.usage.to_dict(),
            "waiting": {
                "approvals": len(glance.waits.approvals),
                "questions": len(glance.waits.questions),
            },
        }

    async def inbox(self, exchange: Exchange) -> None:
        """List what runs wait for, the longest wait first."""
        limit = limit_of(exchange.request.query)
        found: list[dict[str, Any]] = []
        for header in await self._live():
            glance = await self._overview.look(header)
            found += _asked(header, glance)
        found.sort(key=lambda item: (item["since"], item["tenant_id"], item["run_id"]))
        return await exchange.answer_json(200, {"items": found[:limit], "total": len(found)})


def _asked(header: RunHeader, glance: Glance) -> Iterator[dict[str, Any]]:
    for event in glance.waits.approvals.values():
        yield _item("approval", header, event)
    for event in glance.waits.questions.values():
        yield _item("question", header, event)


def _item(kind: str, header: RunHeader, event: AgentEvent) -> dict[str, Any]:
    """One that is asked, as the run tells it."""
    keys = (
        *("call_id", "tool_name", "arguments", "deadline"),
        *("request_id", "prompt", "schema"),
    )
    return {
        "kind": kind,
        "tenant_id": header.tenant_id,
        "run_id": header.run_id,
        "session_id": header.session_id if header.is_remembered else None,
        "agent": header.agent,
        "asked_by": event.agent,
        **{key: event.data.get(key) for key in keys},
        "since": event.timestamp,
    }


def _statuses(text: str) -> frozenset[AgentStatus]:
    try:
        return frozenset(AgentStatus(name) for name in text.split(",") if name)
    except ValueError:
        known = ", ".join(AgentStatus)
        raise Refused(400, f"status: expected some of {known}, with commas between") from None


def _time(name: str, query: Mapping[str, str], default: float) -> float:
    if name not in query:
        return default
    try:
        found = float(query[name])
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Refused(400, f"{name}: expected seconds since 1970, UTC")
    return found
