"""The laws once more, written down from the design and not from the runtime.

Takes plain data: events as dicts, copied when they were delivered, and what the program's own code
saw. Nothing of flowtrio is imported here, so a mistake there cannot be a mistake here as well.

Where the design is silent, this is lenient: which status is told how soon after what it derives
from; whether what a nested agent left open ends with it or with the run, where it ended well; what
a STATE_CHANGE owes that follows from a closer (L6: an open question or approval counts twice).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from .conversation import flaws_of, problems_of_history

Record: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]

REACH = 0.05
"""Seconds within which a cancellation gets everywhere (L7)."""

KEYS: dict[str, str] = {
    "run_start": "message session_id agent parent_run_id schema",
    "state_change": "old_status new_status reason",
    "error": "error code source retryable deadline limit detail causes",
    "done": "status reason result usage events duration leftover",
    "message_chunk": "chunk message_id",
    "message_complete": "message_id content finish_reason usage model",
    "message_part": "message_id part",
    "message_reset": "message_id reason",
    "reasoning_chunk": "chunk message_id",
    "tool_call_args": "call_id tool_name delta message_id",
    "approval_required": "call_id tool_name arguments deadline",
    "tool_call_start": "call_id tool_name arguments message_id provider_executed",
    "tool_progress": "call_id tool_name progress",
    "tool_call_end": "call_id tool_name outcome result error duration",
    "agent_start": "agent call_id",
    "agent_end": "agent call_id outcome result error usage duration",
    "input_required": "request_id prompt",
    "input_resolved": "request_id outcome text",
    "user_message": "message parts",
    "custom": "name value",
}
SINCE_2: dict[str, str] = {
    "run_start": "parts",
    "message_complete": "provider requested_model duration first_token parent_call_id",
    "approval_required": "parent_call_id",
    "tool_call_start": "parent_call_id",
    "input_required": "call_id schema",
}
"""What ``schema`` 2 adds."""

WAITING = {"waiting_for_input", "waiting_for_approval"}
TERMINAL = {"completed", "error", "cancelled"}
LEGAL = {
    "initializing": {"running", "error", "cancelled"},
    "running": {"running"} | WAITING | TERMINAL,
    "waiting_for_input": {"running", "error", "cancelled"} | WAITING,
    "waiting_for_approval": {"running", "error", "cancelled"} | WAITING,
}
SOURCES = {"model", "tool", "agent", "deadline", "limit", "store", "internal"}
_REFUSED = re.compile("can't emit (?!MESSAGE)")
"""A message may be written by hand after its end; the rest is the runtime's own to get right."""
CLOSERS = ("tool_call_end", "agent_end", "input_resolved", "message_complete", "user_message")
"""In closing order; what the user said and nobody came to take is told last."""
OF_A_RUN = {"run_start", "state_change", "error", "done"}
CUT = {"length", "content_filter", "error", "cancelled"}
"""Finish reasons of replies whose calls never run."""
HIDDEN = {
    "updates": {"tool_call_args", "tool_progress", "custom"},
    "messages": {
        *("tool_call_args", "tool_progress", "custom", "run_start", "state_change"),
        *("agent_start", "agent_end", "tool_call_start", "tool_call_end"),
    },
    "values": {"tool_call_args", "tool_progress", "custom", "message_chunk", "reasoning_chunk"},
}


UNHEARD = frozenset({"message_chunk", "reasoning_chunk", "tool_call_args", "tool_progress"})
"""Events that no telemetry is told of."""


def problems_of(record: Record) -> list[str]:
    """What of a run breaks a law; each a sentence that begins with the law's name."""
    log: list[Event] = record["log"]
    if record["mode"] != "events" or not record["whole"]:
        return [*_of_a_view(log, record["mode"])]
    walk = _Walk()
    problems = []
    for place, event in enumerate(log):
        problems += [f"{text} (event {place}, {event['type']})" for text in walk.step(event, place)]
        if walk.is_lost:
            return problems
    problems += walk.end()
    if walk.is_done:
        problems += _of_the_end(record, walk)
    return problems


def problems_of_innocent(log: list[Event] | None, expected: list[Event]) -> list[str]:
    """L12: a run that has nothing to do with it is as ever."""
    if log is None:
        return ["L12 the innocent run did not end"]
    found, wanted = [_told(event) for event in log], [_told(event) for event in expected]
    if found != wanted:
        return [f"L12 the innocent run's log is {found}"]
    return []


def _told(event: Event) -> str:
    times = ("duration", "first_token")
    data = {key: value for key, value in event["data"].items() if key not in times}
    return f"{event['seq']} {event['type']} {json.dumps(data, sort_keys=True)}"


class _Walk:
    """One log, event by event."""

    def __init__(self) -> None:
        self.is_done = self.is_lost = False
        self.run_id: str | None = None
        self.schema = 1
        self.status: str | None = None
        self.reason: str | None = None
        self.has_failed = False
        self.used: set[str] = set()
        self.calls: dict[str, dict[str, Any]] = {}
        self.agents: dict[str, str | None] = {}
        self.ended_agents: set[str] = set()
        self.questions: dict[str, str] = {}
        self.messages: dict[str, dict[str, Any]] = {}
        self.completed: dict[str, dict[str, Any]] = {}
        self.most_open = 0
        # What is asked afterwards
        self.starts: dict[str, tuple[int, dict[str, Any]]] = {}
        self.ends: dict[str, tuple[int, dict[str, Any]]] = {}
        self.asked: dict[str, tuple[int, dict[str, Any]]] = {}
        self.resolved: dict[str, dict[str, Any]] = {}
        self.agent_starts: dict[str, int] = {}
        self.call_agents: dict[str, str] = {}
        self.call_messages: dict[str, str] = {}
        self.terminal_at: int | None = None
        self.user_messages: list[tuple[int, dict[str, Any]]] = []
        self.done: dict[str, Any] = {}

    def step(self, event: Event, place: int) -> list[str]:
        kind, data, agent = event["type"], event["data"], event["agent"]
        wanted = KEYS.get(kind)
        if wanted is None:
            self.is_lost = True
            return [f"shape no such type as {kind!r}"]
        problems = []
        keys = {*wanted.split(), *(SINCE_2.get(kind, "").split() if self.schema >= 2 else ())}
        if kind != "run_start" and (lacking := keys - data.keys()):
            problems.append(f"shape lacks {sorted(lacking)}")
        if event["seq"] != place:
            problems.append(f"L1 seq {event['seq']}, expected {place}")
        if self.run_id is not None and event["run_id"] != self.run_id:
            problems.append("L1 another run's")
        self.run_id = event["run_id"]
        if (kind == "run_start") != (place == 0):
            problems.append("L2 RUN_START is the first event, and nothing else is")
        if self.is_done:
            problems.append("L2 after DONE")
        if kind in OF_A_RUN and agent != "root":
            problems.append(f"L2 belongs to the run, not to {agent}")
        if self.terminal_at is not None and kind not in ("error", "done"):
            problems.append("L4 after the terminal STATE_CHANGE")
        if kind not in OF_A_RUN and self.status == "initializing":
            problems.append("L4 while the run is initializing")
        if _REFUSED.search(str(data.get("error"))):
            problems.append(f"L12 the runtime tried what its law refuses: {data['error'][:150]}")
        problems += self._speaker(kind, data, agent)
        problems += getattr(self, f"_{kind}")(data, agent, place)
        held = len(self.calls) + len(self.agents) + 2 * len(self.questions) + len(self.messages)
        asked = sum(call["phase"] == "asked" for call in self.calls.values())
        self.most_open = max(self.most_open, held + asked)
        return problems

    def end(self) -> list[str]:
        return [] if self.is_done else ["L2 no DONE"]

    def _speaker(self, kind: str, data: dict[str, Any], agent: str) -> Iterator[str]:
        if agent == "root" or agent in self.agents or kind == "agent_start":
            return
        # Early endings close questions and messages after the agents that they belong to.
        closes = kind in ("message_complete", "input_resolved")
        if not (closes and agent in self.ended_agents):
            yield f"L3 agent {agent} is not running"

    def _new(self, key: str) -> Iterator[str]:
        if key in self.used:
            yield f"L3 {key} was used before"
        self.used.add(key)

    # The run

    def _run_start(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        self.schema = data.get("schema", 1)
        keys = {*KEYS["run_start"].split()}
        keys |= {*SINCE_2["run_start"].split()} if self.schema >= 2 else set()
        if lacking := keys - data.keys():
            yield f"shape lacks {sorted(lacking)}"
        self.status = "initializing"

    def _state_change(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        old, new, reason = data["old_status"], data["new_status"], data["reason"]
        if old != self.status:
            yield f"L4 old_status {old}, but it was {self.status}"
        if new not in LEGAL.get(str(self.status), ()):
            yield f"L4 {self.status} to {new}"
        if new in TERMINAL:
            self.terminal_at = place
            left = [*self.calls, *self.agents, *self.questions, *self.messages]
            if left:
                yield f"L3 {', '.join(left)} open at the end"
        else:
            asked = any(call["phase"] == "asked" for call in self.calls.values())
            derived = "waiting_for_approval" if asked else "running"
            derived = "waiting_for_input" if self.questions else derived
            if new != derived:
                yield f"L4 {new}, but what is open makes it {derived}"
            if new == self.status and (reason is None or reason == self.reason):
                yield "L4 the same status without a new reason"
        self.status, self.reason = new, reason

    def _error(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        if self.status != "error" or self.has_failed:
            yield "L2 ERROR stands once, behind the STATE_CHANGE to error"
        self.has_failed = True
        for key in ("error", "code", "source"):
            if not data[key] or not isinstance(data[key], str):
                yield f"L10 {key} says nothing"
        if data["source"] not in SOURCES:
            yield f"L10 source {data['source']!r}"
        # The last resort keeps the law; but nothing that a program does may lead there.
        theirs = data["error"].startswith(("KeyboardInterrupt", "SystemExit"))
        if data["source"] == "internal" and data["code"] != "cleanup_timeout" and not theirs:
            yield f"L12 an error of the runtime's own: {data['error'][:150]}"

    def _done(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        if self.status not in TERMINAL or data["status"] != self.status:
            yield f"L4 DONE says {data['status']}, the status is {self.status}"
        if (data["status"] == "error") != self.has_failed:
            yield "L2 a failed run, and no other, has ERROR directly before DONE"
        if data["events"] != place + 1:
            yield f"L1 DONE counts {data['events']} events, expected {place + 1}"
        self.is_done = True
        self.done = data

    # Messages

    def _open(self, data: dict[str, Any], agent: str) -> Iterator[str]:
        key = data["message_id"]
        message = self.messages.get(key)
        if message is None:
            yield from self._new(key)
            self.messages[key] = {"agent": agent, "text": ""}
        elif message["agent"] != agent:
            yield f"L3 {key} belongs to {message['agent']}"

    def _message_chunk(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        yield from self._open(data, agent)
        self.messages[data["message_id"]]["text"] += data["chunk"]

    def _reasoning_chunk(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        yield from self._open(data, agent)

    _message_part = _reasoning_chunk

    def _message_reset(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        yield from self._open(data, agent)
        key = data["message_id"]
        self.messages[key]["text"] = ""
        if left := [c for c, call in self.calls.items() if call["message"] == key]:
            yield f"L3 {', '.join(left)} should have ended before the reset"

    def _message_complete(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        key = data["message_id"]
        message = self.messages.pop(key, None)
        if message is None:
            yield from self._new(key)
            message = {"agent": agent, "text": ""}
        if message["agent"] != agent:
            yield f"L3 {key} belongs to {message['agent']}"
        if data["content"] != message["text"]:
            yield f"L3 {key} says {data['content']!r}, its chunks {message['text']!r}"
        if data["finish_reason"] not in CUT | {"stop", "tool_calls"}:
            yield f"shape finish_reason {data['finish_reason']!r}"
        self.completed[key] = {**data, "agent": agent}

    # Calls

    def _tool_call_args(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        key, message_id = data["call_id"], data["message_id"]
        if message_id in self.completed:
            yield f"L3 {message_id} is complete"
        else:
            yield from self._open(data, agent)
        yield from self._of_call(data, agent, "written", message_id)
        if self.calls[key]["phase"] != "written":
            yield f"L3 {key} is {self.calls[key]['phase']}"

    def _of_call(
        self, data: dict[str, Any], agent: str, phase: str, message_id: str | None
    ) -> Iterator[str]:
        key = data["call_id"]
        call = self.calls.get(key)
        if call is None:
            yield from self._new(key)
            self.calls[key] = {
                "agent": agent,
                "name": data["tool_name"],
                "phase": phase,
                "message": message_id,
            }
            self.call_agents[key] = agent
            if message_id is not None:
                self.call_messages[key] = message_id
            return
        if call["agent"] != agent:
            yield f"L3 {key} belongs to {call['agent']}"
        if call["name"] != data["tool_name"]:
            yield f"L3 {key} is {call['name']!r}, not {data['tool_name']!r}"
        if None not in (message_id, call["message"]) and message_id != call["message"]:
            yield f"L3 {key} belongs to {call['message']}"

    def _approval_required(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        key = data["call_id"]
        known = self.calls.get(key)
        if known is not None and known["phase"] != "written":
            yield f"L3 {key} is {known['phase']}"
        yield from self._of_call(data, agent, "asked", None)
        if self.calls[key]["message"] in self.messages:
            yield f"L10 {self.calls[key]['message']} is not complete"
        self.calls[key]["phase"] = "asked"
        self.asked[key] = (place, data)

    def _tool_call_start(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        key, message_id = data["call_id"], data["message_id"]
        known = self.calls.get(key)
        if known is not None and known["phase"] == "started":
            yield f"L3 {key} had started"
        yield from self._of_call(data, agent, "started", message_id)
        if data["provider_executed"]:
            yield from self._open(data, agent)
        elif message_id is not None:
            message = self.completed.get(message_id)
            if message is None:
                yield f"L10 {key} starts before {message_id} is complete"
            elif message["finish_reason"] in CUT:
                yield f"L10 {key} of a reply runs that ended {message['finish_reason']}"
        if not isinstance(data["arguments"], dict):
            yield "L10 arguments are no object"
        self.calls[key]["phase"] = "started"
        self.calls[key]["message"] = message_id
        if message_id is not None:
            self.call_messages[key] = message_id
        self.starts[key] = (place, data)

    def _tool_progress(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        known = self.calls.get(data["call_id"])
        if known is None or known["phase"] != "started":
            yield f"L3 {data['call_id']} is not running"
        else:
            yield from self._of_call(data, agent, "started", None)

    def _tool_call_end(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        key, outcome = data["call_id"], data["outcome"]
        yield from self._of_call(data, agent, "unheard of", None)
        phase = self.calls.pop(key)["phase"]
        allowed = {
            # Denied by what stands around it, which `_of_hooks` asks for.
            "started": ("ok", "error", "timeout", "cancelled", "denied"),
            "asked": ("error", "timeout", "cancelled", "denied"),
        }.get(phase, ("error", "cancelled", "denied"))
        if outcome not in allowed:
            yield f"L3 {key} was {phase} and ended {outcome}"
        if outcome == "error" and not data["error"]:
            yield f"L10 {key} ended error and does not say why"
        inside = [path for path, call_id in self.agents.items() if call_id == key]
        if outcome == "ok" and inside:
            yield f"L3 {', '.join(inside)} should have ended before {key}"
        self.ends[key] = (place, data)

    # Agents, questions, the rest

    def _agent_start(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        path, call_id = data["agent"], data["call_id"]
        if path != agent:
            yield f"L3 the envelope says {agent}, the data {path}"
        parent = path.rpartition("/")[0]
        if parent != "root" and parent not in self.agents:
            yield f"L3 {parent or 'nobody'} is not running"
        if call_id is not None and self.calls.get(call_id, {}).get("phase") != "started":
            yield f"L3 {call_id} is not running"
        yield from self._new(path)
        self.agents[path] = call_id
        self.agent_starts[path] = place

    def _agent_end(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        path = data["agent"]
        if path != agent or path not in self.agents:
            yield f"L3 {path} is not running"
        inside = [call for call, known in self.calls.items() if _is_in(known["agent"], path)]
        inside += [other for other in self.agents if other.startswith(f"{path}/")]
        if inside:
            yield f"L3 {', '.join(inside)} should have ended before {path}"
        self.agents.pop(path, None)
        self.ended_agents.add(path)

    def _input_required(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        yield from self._new(data["request_id"])
        self.questions[data["request_id"]] = agent

    def _input_resolved(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        key = data["request_id"]
        if self.questions.pop(key, None) != agent:
            yield f"L3 {key} is no open question of {agent}"
        if (data["outcome"] == "answered") != isinstance(data["text"], str):
            yield f"L10 {key} is {data['outcome']} with the text {data['text']!r}"
        self.resolved[key] = data

    def _user_message(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        if agent != "root":
            yield f"L2 what the user says belongs to the run, not to {agent}"
        self.user_messages.append((place, data))

    def _custom(self, data: dict[str, Any], agent: str, place: int) -> Iterator[str]:
        yield from ()


def _is_in(agent: str, path: str) -> bool:
    return agent == path or agent.startswith(f"{path}/")


# What was seen beside the log


def _of_the_end(record: Record, walk: _Walk) -> Iterator[str]:
    log = record["log"]
    if record["recorded"] not in (-1, len(log)):
        yield f"L2 {record['recorded']} events in the end, {len(log)} up to DONE"
    if record["outcome"] not in (None, walk.done["status"]):
        yield f"L2 result() says {record['outcome']}, DONE {walk.done['status']}"
    errors = [event["data"] for event in log if event["type"] == "error"]
    if any(error["source"] == "store" for error in errors) and not record["struck"]:
        yield f"L10 no store failed, and yet: {errors[0]['error']}"
    yield from _of_the_bound(record, walk)
    yield from _of_closing(record, walk)
    yield from _of_controls(record, walk)
    yield from _of_posts(record, walk)
    yield from _of_edits(record, walk)
    yield from _of_hooks(record, walk)
    yield from _of_effects(record, walk)
    yield from _of_values(record, walk)
    if record["times agree"]:
        yield from _of_reach(record, walk)
    yield from _of_views(record, walk)
    yield from _of_hearing(record)
    if record["messages"] is not None:
        flaws = list(flaws_of(record["messages"]))
        yield from flaws
        if not any("are no message" in flaw for flaw in flaws):
            yield from problems_of_history(record, walk)


def _of_the_bound(record: Record, walk: _Walk) -> Iterator[str]:
    owed = 0
    while walk.terminal_at is not None and record["log"][walk.terminal_at - 1 - owed]["type"] == (
        "user_message"
    ):
        # Accepted, and not taken until the end had begun: told with the closers.
        owed += 1
    bound = record["limits"].get("buffer", 64) + walk.most_open + record["silent"] + owed + 3
    if record["peak"] > bound:
        yield f"L6 {record['peak']} events undelivered, expected {bound} at most"


def _of_closing(record: Record, walk: _Walk) -> Iterator[str]:
    """L2: from a cancellation on only closers, in their order, then the end."""
    log = record["log"]
    cancels = [c for c in record["controls"] if c["name"] == "cancel" and c["took"]]
    if len(cancels) > 1:
        yield "L2 cancel took effect more than once"
    if cancels and walk.done["status"] == "completed":
        yield "L2 cancel took effect, and the run completed"
    if cancels and walk.done["status"] == "error":
        [error] = [e for e in log if e["type"] == "error"]
        if error["data"]["code"] != "cleanup_timeout":
            yield f"L2 cancel took effect, and the run failed: {error['data']['code']}"
    for begun in [*cancels, *([record["left"]] if record["left"] else [])]:
        first = begun["events"]
        if first < 1:
            continue
        rest = [e for e in log[first:] if e["type"] not in OF_A_RUN]
        if any(e["type"] not in CLOSERS for e in rest):
            kinds = sorted({e["type"] for e in rest} - set(CLOSERS))
            yield f"L2 {', '.join(kinds)} recorded after the end had begun"
        ranks = [CLOSERS.index(e["type"]) for e in rest if e["type"] in CLOSERS]
        if ranks != sorted(ranks):
            yield f"L3 closed as {', '.join(e['type'] for e in rest)}"
        states = [e for e in log[first:] if e["type"] == "state_change"]
        if len(states) > 1:
            yield "L4 the closer told another status than the terminal one"
        ended = [walk.agent_starts.get(e["agent"], 0) for e in rest if e["type"] == "agent_end"]
        if ended != sorted(ended, reverse=True):
            yield "L3 nested agents were not closed last opened first"


def _of_controls(record: Record, walk: _Walk) -> Iterator[str]:
    took: dict[str, list[Any]] = {}
    for control in record["controls"]:
        if control["took"] and control["key"] is not None:
            took.setdefault(f"{control['name']} {control['key']}", []).append(control)
        elif control["took"] and control["name"] not in ("cancel",):
            yield f"L12 {control['name']} took effect on what is no id"
    for what, controls in took.items():
        name, _, key = what.partition(" ")
        if len(controls) > 1 and name != "cancel":
            yield f"L2 {what} took effect {len(controls)} times"
        outcome = walk.ends[key][1]["outcome"] if key in walk.ends else None
        is_call = name not in ("answer", "dismiss")
        if outcome is None and key not in walk.call_agents and is_call:
            # A call that had no event yet has no END either.
            continue
        if name == "cancel_tool" and outcome != "cancelled":
            yield f"L10 {what} took effect, and the call ended {outcome}"
        if name == "approve" and key not in walk.starts and outcome not in ("cancelled", "error"):
            yield f"L10 {what} took effect, and the call ended {outcome} without a START"
        if name == "deny" and key in walk.starts:
            yield f"L10 {what} took effect, and the call started"
        if name == "deny" and outcome not in ("denied", "cancelled"):
            yield f"L10 {what} took effect, and the call ended {outcome}"
        if name == "answer":
            resolved = walk.resolved.get(key, {})
            if resolved.get("outcome") not in ("answered", "cancelled"):
                yield f"L10 {what} took effect, and it was {resolved.get('outcome')}"
        if name == "dismiss" and (told := walk.resolved.get(key, {}).get("outcome")) != "declined":
            yield f"L10 {what} took effect, and it was {told}"
    for key in walk.asked.keys() & walk.starts.keys():
        if f"approve {key}" not in took:
            yield f"L10 {key} started, and nobody approved it"
    for key, resolved in walk.resolved.items():
        if resolved["outcome"] == "answered" and f"answer {key}" not in took:
            yield f"L10 {key} was answered by nobody"
        if resolved["outcome"] == "declined" and f"dismiss {key}" not in took:
            yield f"L10 {key} was declined by nobody"


def _of_posts(record: Record, walk: _Walk) -> Iterator[str]:
    """What was accepted is told once and is in the conversation; what was not is nowhere."""
    accepted = [post for post in record["posts"] if post["took"]]
    if len(accepted) != len(walk.user_messages):
        yield f"L11 {len(accepted)} posts were accepted, {len(walk.user_messages)} told"
    tokens = [post["token"] for post in accepted if post["token"] is not None]
    texts = [data["message"] for _, data in walk.user_messages]
    told = [token for text in texts for token in tokens if token in text]
    if (sorted(told), told)[not record["threads"]] != (sorted(tokens), tokens)[
        not record["threads"]
    ]:
        yield f"L11 accepted were {tokens}, told are {texts}"
    for post in record["posts"]:
        token = post["token"]
        if token is None or record["messages"] is None:
            continue
        found = sum(token in str(m.get("content")) for m in record["messages"])
        if found != (1 if post["took"] else 0):
            yield f"L11 post {token} was {post['took']}, and stands {found} times in it"
    if record["strict"]:
        yield from _of_heard(record, walk)


def _of_heard(record: Record, walk: _Walk) -> Iterator[str]:
    """Each request of an agent has what the user said up to there, and no more."""
    for effect in record["effects"]:
        known = effect["events"]
        if effect["kind"] != "request" or not effect["is_root"] or known < 0:
            continue
        told = [
            post["token"]
            for post in record["posts"]
            if post["took"]
            and post["token"] is not None
            and any(p < known and post["token"] in d["message"] for p, d in walk.user_messages)
        ]
        if sorted(effect["heard"]) != sorted(told):
            yield f"L11 the request after {known} events heard {effect['heard']}, told were {told}"


def _of_edits(record: Record, walk: _Walk) -> Iterator[str]:
    """What a person made of a call's arguments is what START, function and history have."""
    for key, arguments in record["edits"].items():
        if arguments is None or not _is_json(arguments):
            continue
        if key in walk.starts and _plain(walk.starts[key][1]["arguments"]) != _plain(arguments):
            yield f"L10 {key} was given {arguments}, START has {walk.starts[key][1]['arguments']}"
        for effect in record["effects"]:
            is_its = effect["kind"] == "tool" and effect["call_id"] == key
            if is_its and _plain(effect["arguments"]) != _plain(arguments):
                yield f"L10 {key} was given {arguments}, ran with {effect['arguments']}"
        if record["messages"] is None or not _is_of_a_reply(key, walk):
            continue
        kept = [
            json.loads(call["function"]["arguments"])
            for message in record["messages"]
            for call in message.get("tool_calls") or ()
        ]
        if key in walk.starts and [_plain(k) for k in kept].count(_plain(arguments)) != 1:
            yield f"L11 {key} was given {arguments}, it has {kept}"


def _is_of_a_reply(key: str, walk: _Walk) -> bool:
    """Whether the conversation has it: a call that a reply of the root asked for."""
    message = walk.completed.get(walk.call_messages.get(key, ""))
    if message is None or message["finish_reason"] in CUT or message["agent"] != "root":
        return False
    return message.get("parent_call_id") is None


def _of_hooks(record: Record, walk: _Walk) -> Iterator[str]:
    """A call ends as the outermost hook around it was left, or earlier."""
    for key, (_, end) in walk.ends.items():
        hooked = record["hooked"].get(key, {"how": None})
        if key in walk.starts and end["outcome"] == "denied" and hooked["how"] != "denied":
            yield f"L10 {key} had started and is denied, and nothing around it did that"
    for key, hooked in record["hooked"].items():
        if key not in walk.ends:
            yield f"L10 something stood around {key}, and no END tells of it"
            continue
        end, value = walk.ends[key][1], hooked["value"]
        match hooked["how"], end["outcome"]:
            case (_, "cancelled" | "timeout"):
                pass
            case ("denied", "denied") | ("raised", "error"):
                pass
            case ("gave", "ok"):
                if _is_json(value) and end["result"] != value:
                    yield f"L10 {key} was to give {value}, its END says {end['result']}"
            case ("gave", "error") if not _is_json(value):
                pass
            case (how, outcome):
                yield f"L10 what stands around {key} {how}, and it ended {outcome}"


def _of_effects(record: Record, walk: _Walk) -> Iterator[str]:
    requests = 0
    for effect in record["effects"]:
        known = effect["events"]
        match effect["kind"]:
            case "tool":
                yield from _of_tool(effect, walk, effect["call_id"] in record["edits"])
            case "agent" if effect["agent"] != "root":
                started = walk.agent_starts.get(effect["agent"])
                if started is None or (known >= 0 and started >= known):
                    yield f"L10 agent {effect['agent']} ran before its AGENT_START, or without"
            case "request":
                requests += 1
            case "answered":
                texts = [r["text"] for r in walk.resolved.values()]
                if effect["text"] not in texts:
                    yield f"L10 ask gave {effect['text']!r}, told were {texts}"
            case "declined":
                if walk.resolved.get(effect["key"], {}).get("outcome") != "declined":
                    yield f"L10 ask raised InputDeclined, {effect['key']} is not declined"
            case "approved":
                if not any(
                    end["outcome"] == "ok" and key in walk.asked
                    for key, (_, end) in walk.ends.items()
                ):
                    yield "L10 approve gave True, and no call ended ok"
            case _:
                pass
    again = sum(e["type"] == "message_reset" for e in record["log"])
    if requests > len(walk.completed) + (again if record["has model hooks"] else 0):
        yield f"L10 {requests} requests, {len(walk.completed)} messages"
    broken = [m for m in walk.completed.values() if m["finish_reason"] in ("error", "cancelled")]
    if record["cuts"] > len(broken) and not record["has model hooks"]:
        yield f"L10 {record['cuts']} replies were cut, {len(broken)} told so"
    for failed in record["failed"]:
        end = walk.ends.get(failed["call_id"])
        if end is None and failed["call_id"] not in walk.call_agents:
            continue
        if end is None or end[1]["outcome"] != failed["outcome"]:
            told = None if end is None else end[1]["outcome"]
            yield f"L10 call {failed['call_id']} is {told}, its caller heard {failed['outcome']}"


def _of_tool(effect: dict[str, Any], walk: _Walk, edited: bool) -> Iterator[str]:
    key, known = effect["call_id"], effect["events"]
    if key not in walk.starts:
        yield f"L10 {key} ran, and no START tells it"
        return
    place, start = walk.starts[key]
    if known >= 0 and place >= known:
        yield f"L10 {key} ran before its START"
    if known >= 0 and key in walk.ends and walk.ends[key][0] < known:
        yield f"L10 {key} ran after its END"
    if type(effect["arguments"]["n"]) is not int:
        yield f"L10 {key} takes a whole number and ran with {effect['arguments']}"
    if _plain(start["arguments"]) != _plain(effect["arguments"]):
        yield f"L10 {key} ran with {effect['arguments']}, START says {start['arguments']}"
    if key in walk.asked and not edited:
        asked = walk.asked[key][1]["arguments"]
        if _plain(asked) != _plain(effect["arguments"]):
            yield f"L10 {key} ran with {effect['arguments']}, approved was {asked}"


def _plain(arguments: Any) -> Any:
    if isinstance(arguments, dict):
        return {key: value for key, value in arguments.items() if value is not None}
    return arguments


def _of_values(record: Record, walk: _Walk) -> Iterator[str]:
    """What was told is what was handed in, whatever became of that afterwards."""
    for event in record["log"]:
        data = event["data"]
        match event["type"]:
            case "custom":
                told = data["value"]
            case "tool_progress":
                told = data["progress"]
            case "tool_call_start" | "approval_required":
                number = data["arguments"].get("n") if isinstance(data["arguments"], dict) else None
                if type(number) is not int:
                    continue
                given = record["given"].get(number)
                if (
                    given is not None
                    and _is_json(given)
                    and _plain(given) != _plain(data["arguments"])
                ):
                    yield f"L10 {data['call_id']} was given {given}, told is {data['arguments']}"
                if given is None and number == 666:
                    yield f"L10 {data['call_id']} is told with arguments that were changed later"
                continue
            case _:
                continue
        if isinstance(told, dict) and type(told.get("number")) is int:
            handed = record["handed"].get(told["number"], told)
            if handed.get("value") != told.get("value") and _is_json(handed):
                yield f"L10 {event['type']} tells {told}, handed in was {handed}"
            if "wrecked" in told:
                yield f"L10 {event['type']} was changed after it was recorded"


def _is_json(value: Any) -> bool:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return bool(json.loads(text.encode()) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _of_reach(record: Record, walk: _Walk) -> Iterator[str]:
    name = record["name"]
    moments: list[tuple[str, tuple[Any, ...], float]] = []
    for control in record["controls"]:
        if control["name"] == "cancel" and control["took"]:
            moments.append(("cancel", ("run", name), control["time"]))
    if record["left"] is not None:
        moments.append(("leaving", ("run", name), record["left"]["time"]))
    for key, (place, end) in walk.ends.items():
        if end["outcome"] in ("cancelled", "timeout"):
            moments.append((key, ("call", name, key), record["log"][place]["timestamp"]))
    for what, key, when in moments:
        for reach, begun, ended in record["waits"]:
            if key in reach and ended > max(when, begun) + REACH:
                yield f"L7 {what} at {when}, something waited from {begun} to {ended}"


def _of_hearing(record: Record) -> Iterator[str]:
    """L12: a telemetry hears what is recorded, as it was, until it raises; then nothing."""
    told = record["told"]
    if told is None:
        return
    fell_at = told.index(None) if None in told else len(told)
    if len(told) > fell_at + 1:
        yield f"L12 a telemetry that raised was told {len(told) - fell_at - 1} events more"
    loud = [event for event in record["log"] if event["type"] not in UNHEARD]
    heard, wanted = told[:fell_at], loud if None not in told else loud[:fell_at]
    if [event["seq"] for event in heard] != [event["seq"] for event in wanted]:
        yield f"L12 a telemetry heard of {[e['seq'] for e in heard]}"
        return
    for event, right in zip(heard, wanted, strict=True):
        if event != right:
            yield f"L12 a telemetry heard {event}, told was {right}"


def _of_views(record: Record, walk: _Walk) -> Iterator[str]:
    for mode, view in record["views"].items():
        wanted = [e for e in record["log"] if e["type"] not in HIDDEN[mode]]
        if [e["seq"] for e in view] != [e["seq"] for e in wanted]:
            yield f"L8 {mode} shows {[e['seq'] for e in view]}"
            continue
        for seen, event in zip(view, wanted, strict=True):
            data = {key: value for key, value in seen["data"].items() if key != "state"}
            if data != event["data"]:
                yield f"L8 {mode} changed the data of event {event['seq']}"
        if mode == "values" and view:
            yield from _of_states(record["log"], view)
            state = view[-1]["data"].get("state", {})
            if state.get("status") != walk.done["status"]:
                yield f"L8 the last state is {state.get('status')}"
            outcomes = {c["call_id"]: c["status"] for c in state.get("calls", ())}
            if outcomes != {key: end["outcome"] for key, (_, end) in walk.ends.items()}:
                yield f"L8 the last state's calls are {outcomes}"


def _of_states(log: list[Event], view: list[Event]) -> Iterator[str]:
    """L8: each snapshot is what the events up to it fold to."""
    texts: dict[str, str] = {}
    status: str | None = None
    waiting: set[str] = set()
    said: list[Any] = []
    snapshots = {event["seq"]: event["data"].get("state", {}) for event in view}
    for event in log:
        kind, data = event["type"], event["data"]
        if kind.startswith("message_") or kind == "reasoning_chunk":
            text = texts.get(data["message_id"], "")
            text += data["chunk"] if kind == "message_chunk" else ""
            texts[data["message_id"]] = "" if kind == "message_reset" else text
        if kind == "run_start":
            status = "initializing"
        if kind == "state_change":
            status = data["new_status"]
        if kind == "approval_required":
            waiting.add(data["call_id"])
        if kind in ("tool_call_start", "tool_call_end"):
            waiting.discard(data["call_id"])
        if kind == "user_message":
            said.append(data)
        state = snapshots.get(event["seq"])
        if state is None:
            continue
        if state.get("user_messages") != said:
            yield f"L8 the user's messages at {event['seq']} are {state.get('user_messages')}"
        if state.get("status") != status:
            yield f"L8 the state at {event['seq']} is {state.get('status')}, expected {status}"
        told = {m["message_id"]: m["content"] for m in state.get("messages", ())}
        if told != texts:
            yield f"L8 the messages at {event['seq']} are {told}, expected {texts}"
        if set(state.get("approvals", ())) != waiting:
            yield f"L8 the approvals at {event['seq']} are {state.get('approvals')}"


def _of_a_view(log: list[Event], mode: str) -> Iterator[str]:
    """What can be told without the log: of another mode, or if somebody else read some of it."""
    seqs = [event["seq"] for event in log]
    if seqs != sorted(set(seqs)):
        yield f"L1 {mode} has the places {seqs}"
    if any(event["type"] in HIDDEN.get(mode, ()) for event in log):
        yield f"L8 {mode} shows what it hides"
    if any(event["type"] == "done" for event in log[:-1]):
        yield "L2 DONE is not the last"
