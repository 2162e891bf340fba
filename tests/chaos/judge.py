"""What must hold when all is over, asked of the store itself."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from flowtrio import AgentEvent, RedisConversations, RedisStore
from flowtrio.testing import find_violations

from .answers import Deeds, judge_answers
from .clients import Clients, Run
from .processes import LEASE

_TENANT = "default"
_UNBEGUN = 3
"""Events of a run that is cancelled before anybody runs it."""
_LEFT = ("q", "wait", "line:*", "live:*", "o:*")
"""Keys of runs that go on, and of conversations that are busy."""
_LEASES = "w:*"


async def judge(clients: Clients, url: str, marks: Path) -> list[str]:
    """What does not hold, as sentences."""
    found = [*clients.wrong, *clients.processes.wrong]
    deeds = deeds_of(marks)
    executed = Counter({run_id: deed.began for run_id, deed in deeds.items()})
    losses = clients.processes.losses
    found += [f"{run} was executed {n} times" for run, n in executed.items() if n > 1 + losses]
    statuses: dict[str, str] = {}
    async with RedisStore(url) as store, RedisConversations(url) as conversations:
        for run in clients.runs:
            log = await _log_of(store, run.run_id)
            # Who had gone is not told of what was lost with the lease of its owner, or of a run
            # that begins anew.
            is_cut = executed[run.run_id] > 1 or _is_cut(log)
            is_anew = losses > 0 and is_cut
            found += [f"{run.run_id}: {each}" for each in _judge_run(run, log, is_anew)]
            if not is_anew:
                of_run = judge_answers(log, run.words, deeds.get(run.run_id, Deeds()))
                found += [f"{run.run_id}: {each}" for each in of_run]
            if is_anew and len(log) <= _UNBEGUN:
                del executed[run.run_id]
            if log and "status" not in log[-1].data:
                found.append(f"{run.run_id} has not ended; what was said to it: {run.words}")
            if log:
                statuses[run.run_id] = log[-1].data.get("status", "unfinished")
        for session_id in sorted({run.session_id for run in clients.runs if run.session_id}):
            said = await conversations.load(_TENANT, session_id)
            found += _judge_conversation(clients, session_id, said, executed, statuses)
    return found


def deeds_of(marks: Path) -> dict[str, Deeds]:
    """What each run's agent has done."""
    found: dict[str, Deeds] = {}
    for line in marks.read_text().splitlines():
        run_id, kind, *text = line.split(" ", 2)
        found.setdefault(run_id, Deeds()).note(kind, *(text or [""]))
    return found


def _is_cut(log: list[AgentEvent]) -> bool:
    """Whether somebody else has ended it, or nobody has begun it, as far as the store knows."""
    is_interrupted = any(each.data.get("code") == "interrupted" for each in log)
    return len(log) <= _UNBEGUN or is_interrupted


async def _log_of(store: RedisStore, run_id: str) -> list[AgentEvent]:
    log: list[AgentEvent] = []
    try:
        while batch := await store.read(_TENANT, run_id, len(log) - 1, 500):
            log += batch
    except LookupError:
        return []
    return log


def _judge_run(run: Run, log: list[AgentEvent], is_anew: bool = False) -> list[str]:
    if not log:
        return ["it was acknowledged, and is lost"] if run.is_told and not is_anew else []
    found = [str(violation) for violation in find_violations(log)]
    seen = [msgspec.convert(each, list[AgentEvent]) for each in run.logs]
    # What is told of another's exceptions is not shown to remote readers; here there are none.
    if not is_anew:
        found += ["a reader saw something else than is stored" for each in seen if each != log]
    return found


def _judge_conversation(
    clients: Clients,
    session_id: str,
    said: list[dict[str, Any]],
    executed: Counter[str],
    statuses: dict[str, str],
) -> list[str]:
    found = []
    turns = Counter(each["content"] for each in said if each["role"] == "user")
    for run in clients.runs:
        if run.session_id != session_id:
            continue
        count = turns[run.message]
        began = executed[run.run_id] > 0
        if count > 1 or (began and count != 1):
            status = statuses.get(run.run_id)
            found.append(f"{run.run_id} ({status}) is {count} times in {session_id}")
    return found


def judge_keys(clients: Clients) -> list[str]:
    """No key of a run that goes on may be left; to be asked when all processes have ended.

    A lease lapses by itself, where a process had no time to give it up; one that does not is left.
    """
    socket = clients.processes.redis.socket
    left = [key for pattern in _LEFT for key in _ask(socket, "KEYS", f"ft*:{pattern}")]
    for key in _ask(socket, "KEYS", f"ft*:{_LEASES}"):
        [milliseconds] = _ask(socket, "PTTL", key)
        if milliseconds == "-1" or int(milliseconds) > LEASE * 1000:
            left.append(key)
    return [f"the key {key} is left" for key in left]


def _ask(socket: Path, *words: str) -> list[str]:
    command = ["redis-cli", "-s", str(socket), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
