"""What a chat shows: a run's events as text, or as a live display in a terminal."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any, Protocol, Self

import attrs

from flowtrio._core._events import ROOT, AgentEvent, EventType

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live
    from rich.spinner import Spinner


class Screen(Protocol):
    """Shows one run at a time, inside its block."""

    def __enter__(self) -> Self:
        """Begin to show a run."""
        ...

    def __exit__(self, *_: object) -> None:
        """Leave what was shown in place."""
        ...

    def show(self, event: AgentEvent) -> None:
        """Show the run's next event."""
        ...

    def redraw(self) -> None:
        """Draw anew what moves: to be called every moment, by whoever shows the events."""
        ...

    def paused(self) -> Any:
        """Leave the terminal to a prompt, for the block that this is entered for."""
        ...


class PlainScreen:
    """Text alone: what the models say on standard output, what went wrong on standard error.

    The run's own agent is written as it streams. Where two messages stream at once, the second one
    waits until it is whole, and so do those of nested agents, which are indented.
    """

    def __init__(self) -> None:
        self._streaming: str | None = None
        """The message that is written as it comes."""
        self._is_in_line = False
        self._late: set[str] = set()
        """Messages that are to be written when they are whole."""
        self._whole: list[str] = []
        """Such as are, and wait for the one that streams."""

    def __enter__(self) -> Self:
        """See `Screen`."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `Screen`."""
        if self._is_in_line:
            self.write("\n")
        self.__init__()  # type: ignore[misc]

    def redraw(self) -> None:
        """See `Screen`: nothing moves."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See `Screen`."""
        yield

    def write(self, text: str) -> None:
        """Write to standard output, at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def show(self, event: AgentEvent) -> None:
        """See `Screen`."""
        data = event.data
        match event.type:
            case EventType.MESSAGE_CHUNK:
                self._chunk(data, is_nested=event.agent != ROOT)
            case EventType.MESSAGE_RESET if data["message_id"] == self._streaming:
                self._end_line()
                self._tell("the answer is begun anew")
            case EventType.MESSAGE_COMPLETE:
                self._complete(data, event.agent.count("/"))
            case EventType.ERROR:
                self._tell(f"error ({data['code']}): {data['error']}")
            case EventType.DONE if data["status"] == "cancelled":
                self._tell(f"cancelled: {data['reason'] or 'no reason given'}")
            case _:
                pass

    def _chunk(self, data: dict[str, Any], *, is_nested: bool) -> None:
        message_id = data["message_id"]
        if is_nested or message_id in self._late or self._streaming not in (None, message_id):
            self._late.add(message_id)
        elif text := printable(data["chunk"]):
            self._streaming = message_id
            self.write(text)
            self._is_in_line = not text.endswith("\n")

    def _complete(self, data: dict[str, Any], depth: int) -> None:
        if data["message_id"] in self._late:
            self._late.discard(data["message_id"])
            lines = printable(data["content"]).rstrip("\n").split("\n")
            self._whole += [f"{'  ' * depth}{line}\n" for line in lines]
        elif data["message_id"] == self._streaming:
            self._end_line()
            self._streaming = None
        if self._streaming is None:
            self.write("".join(self._whole))
            self._whole.clear()

    def _end_line(self) -> None:
        if self._is_in_line:
            self.write("\n")
            self._is_in_line = False

    def _tell(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


@attrs.frozen(eq=False)
class _Tail:
    """As many of the last lines as a terminal can show, redraw and wipe out.

    A display that moves is wiped out by going up as many lines as it has, and a cursor stops at the
    top: a display of as many lines as the terminal has takes what stood above it along.
    """

    whole: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        # One line is left for where the cursor stands behind it, and one for what is typed.
        room = max(options.size.height - 2, 1)
        for line in console.render_lines(self.whole, options, pad=False)[-room:]:
            yield from line
            yield Segment.line()


@attrs.define(eq=False)
class _Work:
    """A tool or nested agent that runs, or the waiting for something to show."""

    name: str
    depth: int
    note: str = ""
    spinner: Spinner | None = None
    """Kept from one drawing to the next: it knows how far it has turned."""

    def draw(self) -> RenderableType:
        from rich.padding import Padding
        from rich.spinner import Spinner
        from rich.text import Text

        if self.spinner is None:
            self.spinner = Spinner("dots")
        self.spinner.update(text=Text(f"{self.name}  {self.note}".rstrip()))
        return Padding(self.spinner, (0, 0, 0, 2 * self.depth))


_MARKS = {"ok": "[green]✓[/]", "cancelled": "[yellow]■[/]", "denied": "[yellow]✗[/]"}


class RichScreen:
    """A terminal: text as it streams, then as Markdown; a spinner for each tool that runs."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console if console is not None else Console()
        self._live: Live | None = None
        self._texts: dict[str, tuple[int, StringIO]] = {}
        self._work: dict[str, _Work] = {}
        self._waiting = _Work("starting", 0)
        self._is_entered = False
        self._pauses = 0
        self._held: list[RenderableType] = []
        """What is to stay, and came while somebody was asked."""

    def __enter__(self) -> Self:
        """See `Screen`."""
        self._is_entered = True
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """See `Screen`."""
        self._is_entered = False
        self._stop()
        self._texts.clear()
        self._work.clear()
        self._release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See `Screen`."""
        self._pauses += 1
        self._stop()
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self._release()
                if self._is_entered:
                    self._start()

    def _start(self) -> None:
        from rich.live import Live

        # Transient: what is finished is printed above, for good; only what moves is redrawn. Not by
        # Live's own thread: what is printed while that draws is wiped out with the old display.
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, get_renderable=self._draw
        )
        self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def redraw(self) -> None:
        """See `Screen`."""
        if self._live is not None:
            self._live.refresh()

    # Events

    def show(self, event: AgentEvent) -> None:
        """See `Screen`."""
        data, depth = event.data, event.agent.count("/")
        match event.type:
            case EventType.MESSAGE_CHUNK:
                self._text(data["message_id"], depth).write(data["chunk"])
            case EventType.MESSAGE_RESET:
                self._texts.pop(data["message_id"], None)
            case EventType.MESSAGE_COMPLETE:
                self._texts.pop(data["message_id"], None)
                self._print_message(data, depth)
            case EventType.TOOL_CALL_START:
                self._work[data["call_id"]] = _Work(_call_text(data), depth)
            case EventType.TOOL_PROGRESS if data["call_id"] in self._work:
                self._work[data["call_id"]].note = _short(data["progress"])
            case EventType.TOOL_CALL_END:
                self._print_end(data["call_id"], data["tool_name"], data, depth)
            case EventType.AGENT_START:
                self._work[event.agent] = _Work(_agent_name(event), depth - 1)
            case EventType.AGENT_END:
                self._print_end(event.agent, _agent_name(event), data, depth - 1)
            case EventType.USER_MESSAGE:
                self._print(f"[bold]›[/] {_escape(data['message'])}", 0)
            case EventType.STATE_CHANGE:
                self._waiting.name = _short(data["reason"] or data["new_status"].replace("_", " "))
            case EventType.ERROR:
                what = f"({data['code']}): {data['error']}"
                self._print(f"[bold red]error[/] {_escape(what)}", 0)
            case EventType.DONE:
                self._print_done(data)
            case _:
                pass

    def _text(self, message_id: str, depth: int) -> StringIO:
        if message_id not in self._texts:
            self._texts[message_id] = (depth, StringIO())
        return self._texts[message_id][1]

    # What stays

    def _print(self, renderable: RenderableType, depth: int) -> None:
        from rich.padding import Padding

        padded = Padding(renderable, (0, 0, 0, 2 * depth))
        if self._pauses:
            self._held.append(padded)
        else:
            # Below what is printed stands what was drawn last: that is not to be the old text.
            self.redraw()
            self._console.print(padded)

    def _release(self) -> None:
        for renderable in self._held:
            self._console.print(renderable)
        self._held.clear()

    def _print_message(self, data: dict[str, Any], depth: int) -> None:
        if data["content"].strip():
            self._print(_markdown(data["content"]), depth)
        if data["finish_reason"] in ("length", "content_filter"):
            self._print(f"[yellow]the answer ends here: {data['finish_reason']}[/]", depth)

    def _print_end(self, key: str, name: str, data: dict[str, Any], depth: int) -> None:
        work = self._work.pop(key, None)
        mark = _MARKS.get(data["outcome"], "[red]✗[/]")
        took = "" if data["duration"] is None else f" {data['duration']:.1f} s"
        what = "" if data["outcome"] == "ok" else f" {_escape(data['outcome'])}"
        error = f": {_escape(data['error'])}" if data["error"] else ""
        text = _escape(name if work is None else work.name)
        self._print(f"{mark} {text}[dim]{took}{what}{error}[/]", depth)

    def _print_done(self, data: dict[str, Any]) -> None:
        usage = data["usage"]
        bound = "at least " if usage["quality"] == "lower_bound" else ""
        tokens = f"{bound}{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
        cost = f", {_escape(usage['cost'])}" if usage["cost"] else ""
        if data["status"] == "cancelled":
            self._print(f"[bold yellow]cancelled[/]: {_escape(data['reason'] or '')}", 0)
        self._print(f"[dim]{tokens}{cost}, {data['duration']:.1f} s[/]", 0)

    # What moves

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        width, height = self._console.size
        lines: list[RenderableType] = []
        for depth, text in list(self._texts.values()):
            # No terminal has room for more; what of it is seen depends on the lines that it makes.
            shown = printable(text.getvalue()[-width * height :])
            lines.append(Padding(Text(shown), (0, 0, 0, 2 * depth)))
        lines += [work.draw() for work in list(self._work.values())]
        # The last line is empty, for the ^C that a terminal writes where the cursor stands.
        return _Tail(Group(*(lines or [self._waiting.draw()]), Text("")))


def _call_text(data: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in data["arguments"].items())
    return f"{_short(data['tool_name'])}({printable(arguments)})"


def _short(value: Any) -> str:
    text = " ".join(printable(value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def _markdown(text: str) -> RenderableType:
    from rich.markdown import Markdown

    # Addresses are written out: a link may say one place and lead to another.
    markdown = Markdown(printable(text), hyperlinks=False)
    tokens = list(markdown.parsed)
    for token in tokens:
        # Once more, since entities like &#x202e; have become what they stand for.
        token.content = printable(token.content)
        tokens += token.children or ()
    return markdown


def printable(text: str) -> str:
    """Without control characters: what others wrote is not to move the cursor or ring the bell.

    Nor to turn the direction of what is read. Line ends, tabs, and what joins letters and emoji
    stay.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else "�" for c in text.replace("\r", ""))


def _is_harmless(character: str) -> bool:
    if character in "\n\t\u200c\u200d":
        return True
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _agent_name(event: AgentEvent) -> str:
    return _short(event.agent.rpartition("/")[2])
