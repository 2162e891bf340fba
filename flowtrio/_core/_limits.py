"""Every limit and its default. All are on; ``math.inf`` switches off any that is no size."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import attrs

from ._exceptions import DeadlineExceeded
from ._media import plain_type
from ._values import told, type_name

MOST_PART_BYTES = 10 * 1024 * 1024
"""Bytes of all images and files in one message, and of each."""
MEDIA_TYPES = (
    *("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain"),
    *("text/markdown", "text/csv", "application/json", "audio/wav", "audio/mpeg"),
)
"""Types of images and files that some model reads."""

_MOST = 2**53
"""The largest finite limit: up to here a float, as clocks have it, holds every whole number."""


def is_time(value: Any) -> bool:
    """Whether *value* can be so many seconds: above 0, and no more than clocks can add."""
    return _is_number(value) and (0 < value <= _MOST or value == math.inf)


def is_wait(value: Any) -> bool:
    """Whether *value* can be so many seconds to wait, or none at all."""
    return is_time(value) or (_is_number(value) and value == 0)


def is_whole(value: Any, least: int) -> bool:
    """Whether *value* is a whole number from *least* on."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not is_time(value):
        raise ValueError(
            f"{type(instance).__name__}({attribute.name}={told(value)}): expected a number above 0 "
            "and at most 2**53, or math.inf"
        )


def _whole(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    _positive(instance, attribute, value)
    if value != math.inf and not isinstance(value, int):
        raise ValueError(
            f"{type(instance).__name__}({attribute.name}={value!r}): expected a whole number"
        )


def _whole_or_none(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        _whole(instance, attribute, value)


def _positive_or_none(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not isinstance(value, Decimal):
        _positive(instance, attribute, value)


def of_kind(kind: type) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """A validator for limits: there are several kinds, and each place takes one of them."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        check_kind(value, kind)

    return check


def check_kind(value: object, kind: type) -> None:
    """Refuse limits of another kind, and what is none.

    Raises:
      TypeError: *value* is no *kind*.

    """
    if not isinstance(value, kind):
        raise TypeError(f"limits: expected {kind.__name__}(...), got {type_name(value)}")


def _decimal(value: Any) -> Any:
    """Money as a decimal, from a text too; what is none is refused by the validator."""
    if isinstance(value, str):
        with suppress(ArithmeticError):
            number = Decimal(value)
            return number if number.is_finite() and number > 0 else value
    return Decimal(repr(value)) if is_time(value) and value != math.inf else value


def _media_types(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    for given in value:
        if not isinstance(given, str) or plain_type(given) != given:
            raise ValueError(
                f"{type(instance).__name__}({attribute.name}=...): expected types such as "
                f"'image/png', got {told(given)}"
            )


def _as_tuple(given: Any) -> Any:
    # A text would be taken for its letters.
    return (given,) if isinstance(given, str) else tuple(given)


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of one run. Times are seconds of Trio's clock; counts are whole, or ``math.inf``."""

    run: float = attrs.field(default=600, validator=_positive)
    """The whole run, without the time spent waiting for a person."""
    tool: float = attrs.field(default=60, validator=_positive)
    """One tool call, from its START; a tool's own ``timeout`` comes first."""
    approval: float = attrs.field(default=300, validator=_positive)
    """How long a call waits for a person's approval."""
    input: float = attrs.field(default=300, validator=_positive)
    """How long a question waits for its answer."""
    grace: float = attrs.field(default=5, validator=_positive)
    """How long cleanup may take after a run was told to end, before DONE is recorded without it."""
    turns: float = attrs.field(default=16, validator=_whole)
    """Model replies of one agent within one run."""
    parallel_tools: float = attrs.field(default=8, validator=_whole)
    """Tool calls of one agent that run at once; the others queue."""
    buffer: float = attrs.field(default=64, validator=_whole)
    """Events recorded but not yet read before the producers are paused."""
    result_bytes: float = attrs.field(default=1024 * 1024, validator=_whole)
    """Size as JSON, in bytes: of a tool's or an agent's result, of a progress, a custom value."""
    tokens: int | None = attrs.field(default=None, validator=_whole_or_none)
    """Tokens of all model replies of the run, prompts and answers; None for no limit. The reply
    that passes it is the last."""
    cost: Decimal | None = attrs.field(
        default=None, converter=_decimal, validator=_positive_or_none
    )
    """What they may cost, a number or a text such as ``"0.50"``, in the currency of ``prices=``."""
    requests: int | None = attrs.field(default=None, validator=_whole_or_none)
    """How often the run's agents may ask models; the one behind it is not sent."""


@attrs.frozen(kw_only=True)
class ModelLimits:
    """Limits of one model reply, in seconds: waiting for the model, never for the reader."""

    connect: float = attrs.field(default=10, validator=_positive)
    """Until the connection is made."""
    first_token: float = attrs.field(default=60, validator=_positive)
    """Until the model says something; pings of its host are nothing."""
    gap: float = attrs.field(default=30, validator=_positive)
    """Of silence after that: any byte from the host breaks it, pings too."""
    content: float = attrs.field(default=180, validator=_positive)
    """Until the model says something more, whatever its host sends meanwhile."""

    def due(self, since: float, heard_at: float) -> tuple[str, float]:
        """Which limit strikes first of a model that has spoken, and when.

        Args:
          since: Since when it has said nothing.
          heard_at: When its host last sent anything.

        """
        gap, content = max(since, heard_at) + self.gap, since + self.content
        return ("gap", gap) if gap <= content else ("content", content)

    def stalled(self, limit: str, *, pings: bool) -> DeadlineExceeded:
        """What is told of a model that was silent for too long; with *pings* its host was not."""
        seconds = getattr(self, limit)
        silence = "said nothing for {} s, pings only" if pings else "sent nothing for {} s"
        return DeadlineExceeded(f"the model {silence.format(seconds)} ({limit})", deadline=limit)


@attrs.frozen(kw_only=True)
class ServerLimits:
    """Limits of a server's connections. Times are seconds, sizes bytes."""

    handshake: float = attrs.field(default=5, validator=_positive)
    """Until the request's head is read and answered."""
    head: int = attrs.field(default=16 * 1024, validator=_whole)
    """Size of the request's head."""
    message: int = attrs.field(default=256 * 1024, validator=_whole)
    """Size of one message from a client."""
    parts: int = attrs.field(default=8, validator=_whole)
    """Images, files and further texts in one message from a client."""
    part_bytes: int = attrs.field(default=8 * 1024 * 1024, validator=_whole)
    """Size of all images and files in one message from a client, beside ``message``; 10 MiB at
    most."""
    media_types: tuple[str, ...] = attrs.field(
        default=MEDIA_TYPES, converter=_as_tuple, validator=_media_types
    )
    """The types of images and files that clients may send; empty for none."""
    message_frames: int = attrs.field(default=1024, validator=_whole)
    """Frames that one message may be cut into."""
    json_depth: int = attrs.field(default=32, validator=_whole)
    """Nesting of a client's JSON."""
    runs_per_connection: int = attrs.field(default=8, validator=_whole)
    """Runs of one connection at once."""
    connections: int = attrs.field(default=1000, validator=_whole)
    """Connections at once."""
    bad_messages: int = attrs.field(default=20, validator=_whole)
    """Rejected messages of one connection before it is closed with 1008."""
    send: float = attrs.field(default=10, validator=_positive)
    """Until a client has taken the next 64 KiB of what is sent to it, or all that is left."""
    ping_interval: float = attrs.field(default=20, validator=_positive)
    """Between two keepalive pings."""
    ping_timeout: float = attrs.field(default=20, validator=_positive)
    """Until a ping is answered."""
    close: float = attrs.field(default=2, validator=_positive)
    """Until a client has answered a closing handshake."""
    requests_per_minute: float = attrs.field(default=math.inf, validator=_positive)
    """Requests and connections from one address, those of the page aside. Behind a proxy all come
    from its address."""
    starts_per_minute: float = attrs.field(default=math.inf, validator=_positive)
    """Runs that one tenant starts."""
    spend_per_day: Decimal | None = attrs.field(
        default=None, converter=_decimal, validator=_positive_or_none
    )
    """What the runs of one tenant may cost that began within 24 hours, a number or a text such as
    ``"0.50"``, in the currency of ``prices=``; None for no limit. The run that passes it is the
    last."""

    @property
    def whole_message(self) -> int:
        """Size of one message from a client with all the parts that it may have."""
        if not self.media_types:
            return self.message
        # Base64 takes four bytes for three; addresses, names and keys are beside.
        return self.message + min(self.part_bytes, MOST_PART_BYTES) * 4 // 3 + 64 * 1024
