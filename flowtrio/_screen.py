"""What a chat shows: a run's events as text, or as a live display in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import attrs

from flowtrio._core._events import AgentEvent, EventType

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


class Screen(Protocol):
    """Shows one run at a time, inside its block."""

    def __enter__(self) -> Self:
        """Begin to show a run."""
        ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave what was shown in place."""
        ...

    def show(self, event: AgentEvent) -> None:
        """Show the run's next event."""
        ...

    def paused(self) -> Any:
        """Leave the terminal to a prompt, for the block that this is entered for."""
        ...


class PlainScreen:
    """Text alone: what the model says on standard output, what went wrong on standard error."""

    def __init__(self) -> None:
        self._is_in_line = False

    def __enter__(self) -> Self:
        """See `Screen`."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See `Screen`."""
        sys.stdout.flush()

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
                self.write(data["chunk"])
                self._is_in_line = not data["chunk"].endswith("\n")
            case EventType.MESSAGE_COMPLETE if self._is_in_line:
                self.write("\n")
                self._is_in_line = False
            case EventType.ERROR:
                print(f"error ({data['code']}): {data['error']}", file=sys.stderr)
            case EventType.DONE if data["status"] == "cancelled":
                print(f"cancelled: {data['reason'] or 'no reason given'}", file=sys.stderr)
            case _:
                pass


@attrs.define(eq=False)
class _Work:
    """A tool or nested agent that runs."""

    name: str
    depth: int
    note: str = ""


_MARKS = {"ok": "[green]✓[/]", "cancelled": "[yellow]■[/]", "denied": "[yellow]✗[/]"}


class RichScreen:
    """A terminal: text as it streams, then as Markdown; a spinner for each tool that runs."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console if console is not None else Console()
        self._live: Live | None = None
        self._texts: dict[str, tuple[int, StringIO]] = {}
        self._work: dict[str, _Work] = {}
        self._status = ""

    def __enter__(self) -> Self:
        """See `Screen`."""
        self._start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See `Screen`."""
        self._stop()
        self._texts.clear()
        self._work.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See `Screen`."""
        was_live = self._live is not None
        self._stop()
        try:
            yield
        finally:
            if was_live:
                self._start()

    def _start(self) -> None:
        from rich.live import Live

        # Transient: what is finished is printed above, for good; only what moves is redrawn.
        self._live = Live(
            console=self._console, refresh_per_second=12, transient=True, get_renderable=self._draw
        )
        self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

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
                self._work[event.agent] = _Work(event.agent.rpartition("/")[2], depth - 1)
            case EventType.AGENT_END:
                name = event.agent.rpartition("/")[2]
                self._print_end(event.agent, name, data, depth - 1)
            case EventType.STATE_CHANGE:
                self._status = data["reason"] or data["new_status"].replace("_", " ")
            case EventType.ERROR:
                self._print(f"[bold red]error[/] ({data['code']}): {_escape(data['error'])}", 0)
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

        self._console.print(Padding(renderable, (0, 0, 0, 2 * depth)))

    def _print_message(self, data: dict[str, Any], depth: int) -> None:
        from rich.markdown import Markdown

        if data["content"].strip():
            self._print(Markdown(_printable(data["content"])), depth)
        if data["finish_reason"] in ("length", "content_filter"):
            self._print(f"[yellow]the answer ends here: {data['finish_reason']}[/]", depth)

    def _print_end(self, key: str, name: str, data: dict[str, Any], depth: int) -> None:
        work = self._work.pop(key, None)
        mark = _MARKS.get(data["outcome"], "[red]✗[/]")
        took = "" if data["duration"] is None else f" {data['duration']:.1f} s"
        what = "" if data["outcome"] == "ok" else f" {data['outcome']}"
        error = f": {_escape(data['error'])}" if data["error"] else ""
        text = _escape(name if work is None else work.name)
        self._print(f"{mark} {text}[dim]{took}{what}{error}[/]", depth)

    def _print_done(self, data: dict[str, Any]) -> None:
        usage = data["usage"]
        bound = "at least " if usage["quality"] == "lower_bound" else ""
        tokens = f"{bound}{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
        cost = f", {usage['cost']}" if usage["cost"] else ""
        if data["status"] == "cancelled":
            self._print(f"[bold yellow]cancelled[/]: {_escape(data['reason'] or '')}", 0)
        self._print(f"[dim]{tokens}{cost}, {data['duration']:.1f} s[/]", 0)

    # What moves

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.padding import Padding
        from rich.spinner import Spinner
        from rich.text import Text

        lines: list[RenderableType] = []
        for depth, text in list(self._texts.values()):
            # The end of a long text alone: a display that is higher than the terminal flickers.
            shown = _printable(text.getvalue())[-self._room() :]
            lines.append(Padding(Text(shown), (0, 0, 0, 2 * depth)))
        for work in list(self._work.values()):
            label = Text(f"{work.name}  {work.note}".rstrip())
            lines.append(Padding(Spinner("dots", text=label), (0, 0, 0, 2 * work.depth)))
        if not lines:
            lines.append(Spinner("dots", text=Text(self._status or "starting", style="dim")))
        return Group(*lines)

    def _room(self) -> int:
        width, height = self._console.size
        return max(1, width * (height - len(self._work) - 2) // 2)


def _call_text(data: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in data["arguments"].items())
    return f"{data['tool_name']}({arguments})"


def _short(value: Any) -> str:
    text = " ".join(_printable(value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(_printable(text))


def _printable(text: str) -> str:
    """Without control characters: what a model says is not to move the cursor or ring the bell."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
