"""What a tenant's runs and conversations are listed by: the newest first, a page at a time.

A conversation is what its runs' headers tell of it; a store needs no list of its own for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flowtrio.abc import EventStore, ListedRun, RunHeader
from flowtrio.serving._access import Refused
from flowtrio.serving.commands._clients import StoreFailed

_MOST: Final = 200
"""Entries of a page."""
_USUAL: Final = 50
_TITLE: Final = 80
"""Characters of a title."""


def list_sessions(
    headers: Iterable[RunHeader], told: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The conversations that these runs, the oldest first, belong to.

    Args:
      headers: Of the runs.
      told: What is told of conversations beside that, by their session ids.

    """
    found: dict[str, dict[str, Any]] = {}
    for header in headers:
        if header.session_id is None or not header.is_remembered:
            continue
        entry = found.setdefault(
            header.session_id,
            {
                "session_id": header.session_id,
                "message": _title(header.message),
                **describe(header.message, told.get(header.session_id, {})),
                "created_at": header.created_at,
                "updated_at": header.created_at,
                "runs": 0,
            },
        )
        entry["runs"] += 1
        entry["updated_at"] = max(entry["updated_at"], header.ended_at or header.created_at)
        entry["status"] = header.status and str(header.status)
    return list(found.values())


def list_runs(headers: Iterable[RunHeader]) -> list[dict[str, Any]]:
    """What is told of each run."""
    return [
        {
            "run_id": header.run_id,
            "session_id": header.session_id if header.is_remembered else None,
            "agent": header.agent,
            "message": _title(header.message),
            "created_at": header.created_at,
            "ended_at": header.ended_at,
            "status": header.status and str(header.status),
        }
        for header in headers
    ]


def describe(first: str | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """A conversation's title and origin: what was given, else the words that were said *first*."""
    title = told.get("title") or told.get("agent_title")
    own = None if first is None else _title(first)
    return {"title": title or own, "branched_from": told.get("branched_from")}


def _title(message: str) -> str:
    """The first words of a message, on one line."""
    words = " ".join(message[: 4 * _TITLE].split())
    return words if len(words) <= _TITLE else f"{words[: _TITLE - 1].rstrip()}…"


async def newest(
    store: EventStore, tenant_id: str | None, before: str | None, limit: int
) -> Sequence[ListedRun]:
    """The newest runs that a store knows, from a client's place on.

    Raises:
      Refused: the place is none.
      StoreFailed: the store did.

    """
    try:
        return await store.newest(tenant_id, before=before, limit=limit)
    except ValueError:
        raise Refused(400, "before: expected the next of another page") from None
    except Exception as exc:
        raise StoreFailed(exc) from exc


def page_of(
    entries: Sequence[dict[str, Any]], time: str, key: str, query: Mapping[str, str]
) -> dict[str, Any]:
    """A page of *entries*, the newest by *time* first.

    Args:
      entries: All of them.
      time: The key of an entry's time.
      key: The key of what names an entry.
      query: ``limit``, and ``before``: the ``next`` of the page before.

    Returns:
      ``items``, and ``next``: None where no others follow.

    Raises:
      Refused: the query cannot be read.

    """
    limit = limit_of(query)
    before = _place(query.get("before"))
    ordered = sorted(entries, key=lambda e: (e[time], e[key]), reverse=True)
    rest = [e for e in ordered if before is None or (e[time], e[key]) < before]
    page = rest[:limit]
    has_more = len(rest) > limit
    return {"items": page, "next": f"{page[-1][time]!r}:{page[-1][key]}" if has_more else None}


def limit_of(query: Mapping[str, str]) -> int:
    """How many entries a page is to have.

    Raises:
      Refused: it cannot be read.

    """
    text = query.get("limit")
    if text is None:
        return _USUAL
    if not (
        text.isascii() and text.isdecimal() and 1 <= len(text) <= 3 and 1 <= int(text) <= _MOST
    ):
        raise Refused(400, f"limit: expected a number from 1 to {_MOST}")
    return int(text)


def _place(text: str | None) -> tuple[float, str] | None:
    if text is None:
        return None
    time, colon, name = text.partition(":")
    try:
        place = float(time)
        if not colon or math.isnan(place):
            # Nothing is before what is no time.
            raise ValueError
        return place, name
    except ValueError:
        raise Refused(400, "before: expected the next of another page") from None
