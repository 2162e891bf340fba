"""People: what they answer, edit, decline and say of their own, and what came of it.

As random clicks none of that takes effect, since a call or question has to be open just then; so
who reads does it, at the events that ask for it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

import flowtrio
from flowtrio import Image

from . import odd

if TYPE_CHECKING:
    from .programs import Statement
    from .world import Watch, World

FORMS: dict[str | None, Any] = {
    None: None,
    "whole": int,
    "list": list[int],
    "json": {"type": "integer"},
    "choice": Literal["a", "b"],
}
"""What questions ask for."""
_EDITED = 5000
"""Numbers from here on stand in arguments that a person gave."""


def react(world: World, watch: Watch, event: Any, policy: dict[str, Any]) -> None:
    """Do what a person does who has read *event*."""
    watch.read[str(event.type)] += 1
    for kind, nth, step in policy.get("posts", ()):
        if event.type == kind and watch.read[kind] == nth:
            world._anywhere(lambda step=step: post(world, watch, step))
    match event.type:
        case "approval_required" if policy.get("approve") is not None:
            _decide(world, watch, event.data, policy)
        case "input_required":
            _answer(world, watch, event.data, policy)
        case _:
            pass


def _decide(world: World, watch: Watch, data: dict[str, Any], policy: dict[str, Any]) -> None:
    key = data["call_id"]
    if not policy["approve"]:
        world.control(watch, "deny", key)
        return
    if "edits" in policy:
        arguments = _edited(world, policy["edits"])
        kept = None if policy["edits"] == "odd" else copy.deepcopy(arguments)
        if world.control(watch, "approve", key, arguments):
            watch.edits[key] = kept
        if policy["edits"] != "odd":
            from .world import _wreck

            _wreck(arguments)
    # What does not fit is refused, and goes on waiting.
    if key not in watch.edits:
        world.control(watch, "approve", key)


def _edited(world: World, how: str) -> Any:
    world.counted += 1
    number = _EDITED + world.counted
    match how:
        case "fits":
            data = {"list": [number]}
            return {"n": number, "data": data} if number % 2 else {"n": number}
        case "unfit":
            return ({"n": "x"}, {}, {"n": number, "zz": 1})[number % 3]
        case _:
            return {"n": number, "data": odd.VALUES[number % len(odd.VALUES)]()}


def _answer(world: World, watch: Watch, data: dict[str, Any], policy: dict[str, Any]) -> None:
    key = data["request_id"]
    if "dismisses" in policy and watch.read["input_required"] % 2:
        world.control(watch, "dismiss", key, policy["dismisses"])
    elif policy.get("answer") is not None:
        if data["schema"] is not None:
            world.control(watch, "answer", key, [{"no": "value of any"}])
            world.control(watch, "answer", key, _fitting(data["schema"]))
        else:
            world.control(watch, "answer", key, policy["answer"])


def _fitting(schema: dict[str, Any]) -> Any:
    match schema.get("type"):
        case "integer":
            return 7
        case "array":
            return "[1, 2]"
        case _:
            return "b"


def as_told(answer: Any, schema: str | None) -> Any:
    """An answer as INPUT_RESOLVED has it."""
    return answer if schema is None else msgspec.json.encode(answer).decode()


def post(world: World, watch: Watch, step: Statement) -> None:
    """Say something of one's own, which can be told from all else that is said."""
    if watch.stream is None:
        return
    _, what, interrupt = step
    world.counted += 1
    token = f"p!{world.counted}!"
    message = _MESSAGES.get(what, lambda token: what)(token)
    before = -1 if world.threads else watch.events()
    try:
        took = watch.stream.post(message, interrupt=interrupt)
    except (TypeError, ValueError):
        return
    except BaseException as exc:
        from .world import _told

        world.problem("L12", f"post raised {_told(exc)}")
        return
    watch.posts.append(
        {
            "token": None if what == "" else token,
            "took": took,
            "interrupt": interrupt,
            "events": before,
        }
    )


_MESSAGES: dict[Any, Callable[[str], Any]] = {
    "text": lambda token: token,
    "\ud800": lambda token: f"{token}\ud800",
    "parts": lambda token: [flowtrio.Text(token), Image(data=odd.PNG)],
}


def tokens_in(messages: Any) -> list[str]:
    """Whatever people said of their own in a request."""
    text = json.dumps(messages, default=str)
    return [f"p!{part.split('!')[0]}!" for part in text.split("p!")[1:]]
