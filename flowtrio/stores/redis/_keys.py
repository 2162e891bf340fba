"""What runs and conversations are called on the server, and what a script is given of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowtrio._core._events import AgentEvent, EventType

from ._headers import encode_header
from ._server import new_call

if TYPE_CHECKING:
    from flowtrio.abc import RunHeader


def run_key(tenant_id: str, run_id: str) -> str:
    """A run's part of a key; its id is URL-safe, and so ends at the bar."""
    return f"{run_id}|{tenant_id}"


def names_of(key: str | bytes) -> tuple[str, str]:
    """The tenant and the id in a run's part of a key."""
    run_id, _, tenant_id = text_of(key).partition("|")
    return tenant_id, run_id


def session_key(tenant_id: str, session_id: str) -> str:
    """A conversation's part of a key."""
    return f"{len(tenant_id)}:{tenant_id}|{session_id}"


def index_key(tenant_id: str, session_id: str | None) -> str:
    """Where the runs of a tenant, or of one of its conversations, are listed."""
    return f"t:{tenant_id}" if session_id is None else f"s:{session_key(tenant_id, session_id)}"


def turn_key(header: RunHeader) -> str:
    """The conversation that a run's turn belongs to; empty where it has none."""
    if not header.is_remembered or header.session_id is None:
        return ""
    return session_key(header.tenant_id, header.session_id)


def given_of(header: RunHeader) -> tuple[str | bytes, ...]:
    """What a script that begins a log is given of it."""
    shown, asked = encode_header(header)
    index = "" if header.session_id is None else session_key(header.tenant_id, header.session_id)
    turn = turn_key(header)
    run = run_key(header.tenant_id, header.run_id)
    fixed = (run, shown, asked, header.owner or "", header.tenant_id)
    return (*fixed, turn, index, "0" if turn else "1", new_call())


def end_of(event: AgentEvent) -> tuple[str, str]:
    """When and how an event ends its run; empty for one that does not."""
    if event.type is not EventType.DONE:
        return "", ""
    return repr(event.timestamp), event.data["status"]


def text_of(value: str | bytes) -> str:
    """A reply's text."""
    return value if isinstance(value, str) else value.decode()
