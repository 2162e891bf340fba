"""Headers of runs as JSON: what is shown to all, and what only those get who run or close one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import attrs
import msgspec

from flowtrio._core._events import AgentStatus
from flowtrio._core._limits import Limits
from flowtrio.abc import RunHeader, RunOptions
from flowtrio.wire._json import encode_json

_SHOWN: Final = (
    *("tenant_id", "run_id", "session_id", "agent", "message", "digest", "created_at"),
    "is_remembered",
)
"""What is fixed, and shown to everybody; what changes is kept beside it."""


def encode_header(header: RunHeader) -> tuple[bytes, bytes]:
    """What is shown of a header, and what was asked; the second is empty where nothing was."""
    shown = {name: getattr(header, name) for name in _SHOWN}
    if not header.parts and header.asked is None:
        return encode_json(shown), b""
    asked = None if header.asked is None else _asked(header.asked)
    return encode_json(shown), encode_json({"parts": list(header.parts), "asked": asked})


def decode_header(
    shown: bytes, owner: bytes, asked: bytes | None = None, ended: bytes = b"", status: bytes = b""
) -> RunHeader:
    """A header as it stands."""
    more: dict[str, Any] = msgspec.json.decode(asked) if asked else {"parts": (), "asked": None}
    options = more["asked"]
    return RunHeader(
        **msgspec.json.decode(shown),
        owner=owner.decode() or None,
        parts=tuple(more["parts"]),
        asked=None if options is None else _options(options),
        ended_at=float(ended) if ended else None,
        status=AgentStatus(status.decode()) if status else None,
    )


def _asked(options: RunOptions) -> dict[str, Any]:
    limits = options.limits
    return {
        "history": None if options.history is None else list(options.history),
        "model_settings": dict(options.model_settings),
        "limits": None if limits is None else _plain(attrs.asdict(limits)),
        "client_tools": list(options.client_tools),
        "app": options.app,
        **_plain({"resume_window": options.resume_window}),
        "waits_for_reader": options.waits_for_reader,
        "is_attended": options.is_attended,
    }


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON, which has neither infinity nor decimals."""
    return {
        name: str(value) if value == math.inf or isinstance(value, Decimal) else value
        for name, value in numbers.items()
    }


def _options(given: Mapping[str, Any]) -> RunOptions:
    limits = given["limits"]
    return RunOptions(
        history=given["history"],
        model_settings=given["model_settings"],
        limits=None if limits is None else Limits(**{k: _number(v) for k, v in limits.items()}),
        client_tools=given["client_tools"],
        # Absent from headers of before.
        app=given.get("app"),
        resume_window=_number(given["resume_window"]),
        waits_for_reader=given.get("waits_for_reader", False),
        is_attended=given["is_attended"],
    )


def _number(value: Any) -> Any:
    return math.inf if value == "inf" else value
