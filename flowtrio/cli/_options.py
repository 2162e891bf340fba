"""The options of ``serve``: what they are called, what they mean, and what is made of them."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any, cast

import attrs

from flowtrio._core._limits import ServerLimits
from flowtrio._core._values import told

from ._environment import Several
from ._load import MODELS, UsageError, load
from ._logs import FORMATS
from ._protocols import PROTOCOLS, names_of
from ._serve import Serving

if TYPE_CHECKING:
    from flowtrio.abc import Authenticate

LIMITS = attrs.fields(ServerLimits)
"""Each is an option of ``serve``."""


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add what ``serve`` takes."""
    add_agent(parser)
    option = parser.add_argument
    option(
        "--mcp",
        action=Several,
        metavar="[PREFIX=]COMMAND|URL",
        help="an MCP server whose tools the agent has, by its command line or its address, and "
        "what stands before their names; may be given several times",
    )
    option("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    option(
        "--port",
        type=_port,
        default=8000,
        help="of the page, SSE and a WebSocket (default: %(default)s; 0 for any)",
    )
    option("--no-http", action="store_true", help="without that address")
    option(
        "--ws-port",
        type=_port,
        default=8765,
        help="of the WebSocket listener (default: %(default)s; 0 for any)",
    )
    option("--no-ws", action="store_true", help="without that listener")
    option(
        "--token",
        action=Several,
        help="what clients have to bring; may be given several times",
    )
    option(
        "--tokens",
        metavar="FILE",
        help="a file of tokens instead, each on a line with its tenant, and `operator` behind it "
        "for those who see the runs of all",
    )
    option(
        "--authenticate",
        metavar="MODULE:NAME",
        help="a function instead, which gives the tenant of a request; flowtrio.auth.JWTAuth makes "
        "one for JSON Web Tokens",
    )
    option(
        "--operator-token",
        action=Several,
        help="what those bring who see and steer the runs of all tenants; may be given several "
        "times",
    )
    option(
        "--origin",
        action=Several,
        help="origin of a web page that may connect; may be given several times",
    )
    option(
        "--insecure",
        action="store_true",
        help="listen without a token on an address that others can reach",
    )
    option("--certfile", metavar="FILE", help="certificate of both addresses: https and wss")
    option("--keyfile", metavar="FILE", help="its key (default: in the certificate's file)")
    option(
        "--protocols",
        metavar="NAMES",
        type=names_of,
        default=",".join(PROTOCOLS),
        help="other people's that are spoken at the HTTP address too, with commas between them; "
        "none for none (default: %(default)s)",
    )
    option(
        "--store",
        default="memory",
        help="where logs and conversations are kept: memory, sqlite:PATH, or redis://HOST[:PORT], "
        "which several processes share (default: %(default)s)",
    )
    option(
        "--keep",
        metavar="TIME",
        type=duration,
        help="how long a store keeps what has ended: 7d, 12h, 30m, 45s (default: for ever)",
    )
    option(
        "--role",
        choices=("both", "gateway", "worker"),
        default="both",
        help="what this process does where several share a store: a gateway serves clients and "
        "runs nothing, a worker runs and serves nobody (default: %(default)s)",
    )
    option(
        "--processes",
        metavar="N",
        type=whole_number,
        default=1,
        help="how many processes serve at the same address, so that all cores are used; they need "
        "a store that they share (default: %(default)s)",
    )
    option("--shared-ports", action="store_true", help=argparse.SUPPRESS)
    option(
        "--lease",
        metavar="TIME",
        type=duration,
        default=10,
        help="how long this process may give no sign of life before others end its runs, where "
        "they share a store (default: %(default)s seconds)",
    )
    option(
        "--capacity",
        metavar="N",
        type=whole_number,
        default=500,
        help="how many runs this process runs at once, where several share a store "
        "(default: %(default)s)",
    )
    option(
        "--resume-window",
        metavar="TIME",
        type=duration_or_zero,
        default=60,
        help="how long a run goes on without a reader; 0 cancels it when its reader leaves "
        "(default: %(default)s seconds)",
    )
    option(
        "--drain",
        metavar="TIME",
        type=duration_or_zero,
        default=5,
        help="how long runs may go on when the server stops; 0 for not at all "
        "(default: %(default)s seconds)",
    )
    option(
        "--otel",
        action="store_true",
        help="send traces and metrics to where OTEL_EXPORTER_OTLP_ENDPOINT and the other variables "
        "of OpenTelemetry say",
    )
    option(
        "--log-format",
        choices=FORMATS,
        default="text",
        help="of what is written to standard error (default: %(default)s)",
    )
    _add_limits(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits", "in seconds and bytes; beyond them see the guides")
    for field in LIMITS:
        limits.add_argument(
            f"--limit-{field.name.replace('_', '-')}",
            metavar="N",
            type=_types if isinstance(field.default, tuple) else _number,
            default=field.default,
            help=f"(default: {_told_default(field.default)})",
        )


def _told_default(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _types(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Add what says who answers."""
    option = parser.add_argument
    option("--model", metavar="MODEL", help=f"one of: {MODELS} (default: demo)")
    option("--agent", metavar="MODULE:NAME", help="an agent of your own (default: a demonstration)")


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds, from a number with a unit or without; more than 0."""
    seconds = duration_or_zero(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    return seconds


def duration_or_zero(text: str) -> float:
    unit = text[-1:] if text[-1:] in _SECONDS else ""
    try:
        seconds = float(text.removesuffix(unit)) * _SECONDS.get(unit, 1)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 7d, 12h, 30m or 45s, got {text!r}"
        )
    return seconds


def whole_number(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def read_serving(options: argparse.Namespace) -> Serving:
    """What is to be served where, and for whom; `UsageError` for options that cannot be."""
    given = {field.name: getattr(options, f"limit_{field.name}") for field in LIMITS}
    try:
        limits = ServerLimits(**given)
    except ValueError as exc:
        raise UsageError(str(exc)) from None
    if options.keyfile is not None and options.certfile is None:
        raise UsageError("--keyfile needs --certfile")
    return Serving(
        host=options.host,
        port=None if options.no_http else options.port,
        ws_port=None if options.no_ws or options.role == "worker" else options.ws_port,
        tokens=options.token,
        operator_tokens=options.operator_token,
        authenticate=_authenticate_of(options),
        origins=options.origin,
        insecure=options.insecure,
        protocols=options.protocols,
        limits=limits,
        resume_window=options.resume_window,
        is_one_of_many=options.shared_ports,
        drain=options.drain,
        certfile=options.certfile,
        keyfile=options.keyfile,
    )


def _authenticate_of(options: argparse.Namespace) -> Authenticate | None:
    """Who says whose a request is, where tokens alone do not."""
    given = {
        "--token": bool(options.token),
        "--tokens": options.tokens is not None,
        "--authenticate": options.authenticate is not None,
    }
    if sum(given.values()) > 1:
        both = " and ".join(name for name, is_given in given.items() if is_given)
        raise UsageError(f"{both}: expected one of them")
    if options.tokens is not None:
        from flowtrio.auth import TokenFile

        try:
            return TokenFile(options.tokens)
        except (OSError, ValueError) as exc:
            words = getattr(exc, "strerror", None) or exc
            raise UsageError(f"--tokens {options.tokens}: {words}") from None
    if options.authenticate is None:
        return None
    found: Any = load(options.authenticate, "--authenticate")
    if not callable(found):
        name = options.authenticate
        raise UsageError(f"--authenticate {name}: expected what takes a request, got {told(found)}")
    return cast("Authenticate", found)
