"""The command line: ``flowtrio serve``, ``chat``, ``check``, ``timeline``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import attrs
import trio

from flowtrio._core._failures import leaves
from flowtrio._core._limits import ServerLimits

from ._load import MODELS, UsageError, make_orchestrator
from ._logs import FORMATS, configure_logging
from ._mcp import open_servers
from ._serve import CannotServe, Serving, open_stores, serve

if TYPE_CHECKING:
    from flowtrio._core._parts import Part

    from ._chat import Lines
    from ._screen import Screen

LIMITS = attrs.fields(ServerLimits)
"""Each is an option of ``serve``."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell in one line what was asked for wrongly, instead of the whole usage."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    options = _parser().parse_args(arguments)
    status = 2
    try:
        status = options.run(options)
    except* (UsageError, CannotServe) as group:
        # In groups, since nurseries wrap what leaves them.
        print(f"flowtrio: {next(leaves(group))}", file=sys.stderr)
    except* BrokenPipeError:
        # Whoever read has gone, as `head` does. Python would still want to flush at the end.
        status = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="flowtrio", description="Serve an agent, talk to one, or look at what came out of it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve an agent to browsers and other clients"))
    _add_chat(commands.add_parser("chat", help="talk to an agent in the terminal"))
    check = commands.add_parser("check", help="tell whether a log of events obeys the laws")
    check.add_argument("file", metavar="FILE", help="JSON lines; - for standard input")
    check.set_defaults(run=_check)
    _add_timeline(commands.add_parser("timeline", help="draw a log of events as a picture"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda options: trio.run(_serve, options))
    _add_agent(parser)
    option = parser.add_argument
    option(
        "--mcp",
        action="append",
        default=[],
        metavar="COMMAND|URL",
        help="an MCP server whose tools the agent has, by its command line or its address; may be "
        "given several times",
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
        action="append",
        help="what clients have to bring; may be given several times "
        "(default: FLOWTRIO_TOKEN from the environment)",
    )
    option(
        "--origin",
        action="append",
        default=[],
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
        "--store",
        default="memory",
        help="where logs and conversations are kept: memory, or sqlite:PATH (default: %(default)s)",
    )
    option(
        "--keep",
        metavar="TIME",
        type=_duration,
        help="how long an sqlite store keeps what has ended: 7d, 12h, 30m, 45s (default: for ever)",
    )
    option(
        "--resume-window",
        metavar="TIME",
        type=_duration_or_zero,
        default=60,
        help="how long a run goes on without a reader; 0 cancels it when its reader leaves "
        "(default: %(default)s seconds)",
    )
    option(
        "--drain",
        metavar="TIME",
        type=_duration_or_zero,
        default=5,
        help="how long runs may go on when the server stops; 0 for not at all "
        "(default: %(default)s seconds)",
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


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda options: trio.run(_chat, options))
    _add_agent(parser)
    option = parser.add_argument
    option("text", metavar="TEXT", nargs="?", help="a message (default: ask for one after another)")
    option("--events", action="store_true", help="write the run's events as JSON lines")
    option("--file", metavar="PATH", action="append", help="send this with it; may be repeated")
    option("--url", metavar="ws://…", type=_url, help="talk to a server instead")
    option("--token", help="for the server (default: FLOWTRIO_TOKEN from the environment)")


def _add_timeline(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_timeline)
    option = parser.add_argument
    option("file", metavar="FILE", help="JSON lines; - for standard input")
    option(
        "-o",
        "--output",
        metavar="OUT.svg",
        default="-",
        help="where the picture goes (default: standard output)",
    )
    option("--run", dest="run_id", metavar="ID", help="which run, where the file has several")


def _add_agent(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--model", metavar="MODEL", help=f"one of: {MODELS} (default: demo)")
    option("--agent", metavar="MODULE:NAME", help="an agent of your own (default: a demonstration)")


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(text: str) -> float:
    """Seconds, from a number with a unit or without; more than 0."""
    seconds = _duration_or_zero(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    return seconds


def _duration_or_zero(text: str) -> float:
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


def _number(text: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"expected ws://host:port/path, got {text!r}")
    return text


def _check(options: argparse.Namespace) -> int:
    from ._check import check_file

    return check_file(options.file)


def _timeline(options: argparse.Namespace) -> int:
    from flowtrio.pictures._svg import draw_timeline

    from ._check import read_log

    try:
        runs = read_log(options.file)
    except (OSError, ValueError) as exc:
        raise UsageError(f"{options.file}: no log of events: {exc}") from None
    run_id = options.run_id or next(iter(runs))
    if run_id not in runs or (options.run_id is None and len(runs) > 1):
        raise UsageError(f"{options.file}: choose with --run one of its runs: {', '.join(runs)}")
    picture = draw_timeline(runs[run_id])
    try:
        _write(options.output, picture)
    except OSError as exc:
        raise UsageError(f"can't write {options.output}: {exc.strerror}") from None
    return 0


def _write(name: str, text: str) -> None:
    if name == "-":
        sys.stdout.write(text)
    else:
        Path(name).write_text(text, encoding="utf-8")


async def _chat(options: argparse.Namespace) -> int:
    from ._chat import Chat, LocalSource

    if options.url is not None:
        return await _chat_with_server(options)
    if options.token is not None:
        raise UsageError("--token is for a server: it needs --url")

    orchestrator = make_orchestrator(options.model, options.agent)
    screen = _make_screen(options)
    async with orchestrator:
        files = _read_files(options)
        chat = Chat(LocalSource(orchestrator), screen, _make_keyboard(options), files=files)
        return await chat.talk(options.text)


async def _chat_with_server(options: argparse.Namespace) -> int:
    from ._chat import FAILED, Chat, RemoteError, RemoteSource
    from ._screen import printable

    if options.model is not None or options.agent is not None:
        raise UsageError("--url: the server has chosen the agent, --model and --agent do not apply")
    token = options.token or os.environ.get("FLOWTRIO_TOKEN")
    status = FAILED
    try:
        source = RemoteSource(options.url, token)
        files = _read_files(options)
        chat = Chat(source, _make_screen(options), _make_keyboard(options), files=files)
        status = await chat.talk(options.text)
    except* RemoteError as group:
        error = next(leaves(group))
        words = printable(str(error))
        if not getattr(error, "has_begun", False):
            raise UsageError(words) from None
        print(f"flowtrio: {words}", file=sys.stderr)
    return status


def _read_files(options: argparse.Namespace) -> list[Part]:
    from ._chat import read_file

    try:
        return [read_file(path) for path in options.file or ()]
    except (OSError, ValueError) as exc:
        raise UsageError(f"--file: {exc}") from None


def _make_screen(options: argparse.Namespace) -> Screen:
    from ._chat import EventScreen
    from ._screen import PlainScreen, RichScreen

    if options.events:
        return EventScreen()
    if not _is_drawn(options):
        return PlainScreen()
    try:
        return RichScreen()
    except ModuleNotFoundError as exc:
        raise UsageError(f"chat needs {exc.name!r}: pip install 'flowtrio[cli]'") from None


def _is_drawn(options: argparse.Namespace) -> bool:
    """Whether a person looks at the run: then a terminal shows it."""
    return not options.events and sys.stdout.isatty()


def _make_keyboard(options: argparse.Namespace) -> Lines:
    """Lines are edited where a person types them, at a terminal that can move its cursor."""
    from ._chat import Keyboard

    is_dumb = os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")
    if is_dumb or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return Keyboard()
    try:
        from ._editor import LineEditor
    except ModuleNotFoundError as exc:
        if options.text is not None and not _is_drawn(options):
            return Keyboard()  # Nothing is typed but the answer to what a run may ask.
        raise UsageError(f"chat needs {exc.name!r}: pip install 'flowtrio[cli]'") from None
    return LineEditor()


async def _serve(options: argparse.Namespace) -> int:
    configure_logging(options.log_format)
    serving = _read_serving(options)
    async with (
        open_stores(options.store, options.keep) as stores,
        open_servers(options.mcp) as toolsets,
    ):
        await serve(make_orchestrator(options.model, options.agent, stores, toolsets), serving)
    return 0


def _read_serving(options: argparse.Namespace) -> Serving:
    given = {field.name: getattr(options, f"limit_{field.name}") for field in LIMITS}
    try:
        limits = ServerLimits(**given)
    except ValueError as exc:
        raise UsageError(str(exc)) from None
    if options.keyfile is not None and options.certfile is None:
        raise UsageError("--keyfile needs --certfile")
    tokens = options.token or [t for t in [os.environ.get("FLOWTRIO_TOKEN")] if t]
    return Serving(
        host=options.host,
        port=None if options.no_http else options.port,
        ws_port=None if options.no_ws else options.ws_port,
        tokens=tuple(tokens),
        origins=tuple(options.origin),
        insecure=options.insecure,
        limits=limits,
        resume_window=options.resume_window,
        drain=options.drain,
        certfile=options.certfile,
        keyfile=options.keyfile,
    )
