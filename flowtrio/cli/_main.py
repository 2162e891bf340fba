"""The command line: ``flowtrio serve``, ``chat``, ``runs``, ``check``, ``timeline``."""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from flowtrio._core._failures import leaves

from ._environment import Parser
from ._load import UsageError, make_orchestrator, sendable
from ._logs import configure_logging
from ._mcp import open_servers
from ._options import add_agent, add_serve, read_serving
from ._otel import open_telemetry
from ._processes import serve_many
from ._runs import add_runs, write_text
from ._serve import serve
from ._stores import CannotServe, Sharing, open_stores

if TYPE_CHECKING:
    from flowtrio._core._parts import Part

    from ._keyboard import Lines
    from ._screen import Screen


_NO_ROOM: Final[dict[object, str]] = {
    kind: os.strerror(kind) for kind in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
}
"""What is wrong with a place that takes no more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    written = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(written)
    options.written = written[1:]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may say what this place has no bytes for.
        sys.stdout.reconfigure(errors=_ESCAPED)
    try:
        return _run(options)
    except (OSError, ExceptionGroup) as exc:
        found = {getattr(each, "errno", None) for each in leaves(exc)}
        if not found <= _NO_ROOM.keys():
            raise
        _write_no_more()
        print(f"flowtrio: can't write: {_NO_ROOM[found.pop()]}", file=sys.stderr)
        return 2


def _escape(exc: UnicodeError) -> tuple[str, int]:
    """Characters as JSON may have them too: lines of events stay what they are."""
    assert isinstance(exc, UnicodeEncodeError)
    escaped = json.dumps(exc.object[exc.start : exc.end])[1:-1]
    return escaped, exc.end


_ESCAPED: Final = "flowtrio.escaped"
codecs.register_error(_ESCAPED, _escape)


def _run(options: argparse.Namespace) -> int:
    status = 2
    try:
        status = options.run(options)
        # What is still to be written would fail where nobody tells of it.
        sys.stdout.flush()
    except* (UsageError, CannotServe) as group:
        # In groups, since nurseries wrap what leaves them.
        print(f"flowtrio: {next(leaves(group))}", file=sys.stderr)
    except* BrokenPipeError:
        # Whoever read has gone, as `head` does.
        status = 1
        _write_no_more()
    return status


def _write_no_more() -> None:
    """Forget what is still to be written: Python would want to flush it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="flowtrio", description="Serve an agent, talk to one, or look at what came out of it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = commands.add_parser(
        "serve",
        help="serve an agent to browsers and other clients",
        epilog="Each option can stand in the environment too, under the name beside it; several "
        "values of one that may be given several times are lines. Options that are given win.",
        environment=True,
    )
    add_serve(serving)
    serving.set_defaults(run=lambda options: trio.run(_serve, options))
    _add_chat(commands.add_parser("chat", help="talk to an agent in the terminal"))
    check = commands.add_parser("check", help="tell whether a log of events obeys the laws")
    check.add_argument("file", metavar="FILE", help="JSON lines; - for standard input")
    check.set_defaults(run=_check)
    add_runs(commands.add_parser("runs", help="see and steer the runs of a server"))
    _add_timeline(commands.add_parser("timeline", help="draw a log of events as a picture"))
    return parser


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda options: trio.run(_chat, options))
    add_agent(parser)
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


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        # As it is looked up; and a port that is none is told when it is read.
        host, _ = (parts.hostname or "").encode("idna"), parts.port
        is_one = bool(host) and parts.scheme in ("ws", "wss")
    except ValueError:
        is_one = False
    if not is_one:
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
    write_text(options.output, draw_timeline(runs[run_id]))
    return 0


async def _chat(options: argparse.Namespace) -> int:
    from ._chat import Chat
    from ._sources import LocalSource

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
    from ._chat import FAILED, Chat
    from ._screen import printable
    from ._sources import RemoteError, RemoteSource

    if options.model is not None or options.agent is not None:
        raise UsageError("--url: the server has chosen the agent, --model and --agent do not apply")
    token = sendable(options.token or os.environ.get("FLOWTRIO_TOKEN"))
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
    from ._keyboard import Keyboard

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
    if options.processes > 1:
        return await serve_many(options, options.written)
    serving = read_serving(options)
    sharing = Sharing(role=options.role, lease=options.lease, capacity=options.capacity)
    async with (
        open_stores(options.store, options.keep, sharing) as stores,
        open_servers(options.mcp) as toolsets,
        open_telemetry(is_wanted=options.otel) as telemetry,
    ):
        orchestrator = make_orchestrator(options.model, options.agent, stores, toolsets, telemetry)
        await serve(orchestrator, serving)
    return 0
