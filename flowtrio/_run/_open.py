"""What is open in a run, or about to be: under which name, since when, and how it would end.

**What is open brings its own closer.** Whoever opens a call, a nested agent, a question or a
message registers it here beside the frame that it belongs to. Whoever ends a part of the run early,
or all of it, has the log close what is open: it asks each thing how it ended, and makes the event
of what the law knows of it. So a closer cannot be refused, and nobody closes anything twice: what
was closed is not open any more.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import TYPE_CHECKING, Any, Protocol

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._nothing import NOTHING
from flowtrio._core._telling import tell

if TYPE_CHECKING:
    import trio

    from ._pending import Decision, Pending


class Owner(Protocol):
    """What something open belongs to: the frame of a body or a call."""

    things: int
    """How many things it has registered as open."""

    @property
    def is_closed(self) -> bool:
        """Whether it was ended, and what it has open is to be closed."""
        ...


class OpenThing(Protocol):
    """What is open, or about to be: a call, a nested agent, a question, a message."""

    @property
    def owner(self) -> Owner:
        """What it is closed with."""
        ...

    def closing(self) -> dict[str, Any]:
        """It is being closed now: stop what it does, and tell how it ended.

        Gives keys of its closing event's data; those that say what was closed are not asked of it.
        """
        ...


class OpenThings:
    """What is open in one run, by its key: an identifier, or the path of a nested agent."""

    __slots__ = ("_ids", "_run_id", "_since", "_things")

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._things: dict[str, OpenThing] = NOTHING
        self._since: dict[str, float] = NOTHING
        self._ids: dict[str, int] = NOTHING

    # Their names

    def new_id(self, letter: str) -> str:
        """The run's next identifier of this kind: ``m1``, ``c1``, ``q1``."""
        return f"{letter}{self._next(letter)}"

    def new_path(self, parent: str, name: str) -> str:
        """A path of its own for a nested agent: ``root/researcher``, then ``root/researcher#2``."""
        path = f"{parent}/{name.replace('/', '_').replace('#', '_') or 'agent'}"
        number = self._next(path)
        return path if number == 1 else f"{path}#{number}"

    def _next(self, name: str) -> int:
        if self._ids is NOTHING:
            self._ids = {}
        number = self._ids[name] = self._ids.get(name, 0) + 1
        return number

    # From opening to closing

    def add(self, key: str, thing: OpenThing) -> None:
        """Have *thing* asked when what *key* names has to be closed early.

        To be called before its first event. Something that was registered under the same key, such
        as a call that the model wrote, hands over.
        """
        if self._things is NOTHING:
            self._things, self._since = {}, {}
        self.forget(key)
        self._things[key] = thing
        thing.owner.things += 1

    def forget(self, key: str) -> None:
        """What *key* names is closed, or was never opened."""
        if key in self._things:
            self._things.pop(key).owner.things -= 1
        if key in self._since:
            del self._since[key]

    def note(self, event: AgentEvent, clock: trio.abc.Clock) -> None:
        """An event, recorded just now by *clock*, may open or close something."""
        data = event.data
        match event.type:
            case EventType.TOOL_CALL_START:
                self._since[data["call_id"]] = clock.current_time()
            case EventType.TOOL_CALL_END:
                self.forget(data["call_id"])
            case EventType.AGENT_START:
                self._since[event.agent] = clock.current_time()
            case EventType.MESSAGE_COMPLETE:
                self.forget(data["message_id"])
            case EventType.AGENT_END:
                self.forget(event.agent)
            case EventType.INPUT_RESOLVED:
                self.forget(data["request_id"])
            case _:
                pass

    def get(self, key: str) -> OpenThing | None:
        """What *key* names, if that is open or about to be."""
        return self._things.get(key)

    def since(self, key: str) -> float | None:
        """When a call or nested agent was started, by Trio's clock; None if it never was."""
        return self._since.get(key)

    # Closing early

    def ended(self) -> set[str]:
        """The keys of what belongs to somebody who was ended."""
        return {key for key, thing in self._things.items() if thing.owner.is_closed}

    def ask(self, key: str) -> dict[str, Any] | None:
        """How what *key* names ended, by its own words, if it has any; it is to stop."""
        thing = self._things.get(key)
        return None if thing is None else _ask(thing, self._run_id)

    def stop(self, only: Container[str] | None = None) -> None:
        """Have all, or some, stop: what had no event yet has no closer, but may be under way."""
        for key, thing in list(self._things.items()):
            if only is None or key in only:
                _ask(thing, self._run_id)

    # What the outside does to them

    def cancel_call(self, key: str) -> bool:
        """End a call; False if that took no effect, or if *key* names none."""
        end_now = getattr(self._things.get(key), "end_now", None)
        return end_now is not None and bool(end_now("cancelled"))

    def decide(self, key: str, decision: Decision) -> bool:
        """Take a person's decision about one of them; False if that took no effect."""
        pending: Pending | None = getattr(self._things.get(key), "pending", None)
        return pending is not None and pending.decide(decision)

    def abandon(self) -> None:
        """Nobody is there to ask any more: what waits for a person goes on without one."""
        for thing in self._things.values():
            pending: Pending | None = getattr(thing, "pending", None)
            if pending is not None:
                pending.abandon()


def _ask(thing: OpenThing, run_id: str) -> dict[str, Any] | None:
    """How *thing* ended, by its own words; it was cancelled where it has none."""
    try:
        return thing.closing()
    except Exception as exc:
        tell(logging.ERROR, "run %s: what is open cannot tell its end", run_id, exc=exc)
        return None
