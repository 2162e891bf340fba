"""What people said to runs, and what became of it: each approval and each answer by itself.

A word counts from when somebody said that it was accepted. Then a call that was approved is made
once, one that was denied never, and an answer is heard once, by who asked. Of several words for one
question the first counts; where they crossed each other, any may be the first. Where the run's
process was gone meanwhile, or the run was cancelled, nothing may come of a word; but never twice
what it said, and never something else.
"""

from __future__ import annotations

import math

import attrs

from flowtrio import AgentEvent, EventType


@attrs.frozen
class Word:
    """What somebody said to a run."""

    command: str
    text: str | None = None
    said_at: float = 0.0
    accepted_at: float = math.inf
    """When somebody said that it was accepted, if anybody did."""


def first_of(words: list[Word]) -> list[Word]:
    """Those of which each may have been the first: none was accepted before it was said."""
    earliest = min((word.accepted_at for word in words), default=math.inf)
    return [word for word in words if word.said_at <= earliest]


@attrs.define
class Deeds:
    """What a run's agent has done, as its marks tell."""

    began: int = 0
    called: int = 0
    """How often it has made the call that it asks approval for."""
    heard: list[str] = attrs.field(factory=list)
    """Answers."""

    def note(self, kind: str, text: str) -> None:
        """Read a mark."""
        match kind:
            case "began":
                self.began += 1
            case "called":
                self.called += 1
            case _:
                self.heard.append(text)


def judge_answers(log: list[AgentEvent], words: list[Word], deeds: Deeds) -> list[str]:
    """What does not hold of one run, as sentences."""
    is_whole = bool(log) and log[-1].data.get("status") == "completed"
    return [
        *_judge_approval(log, words, deeds, is_whole),
        *_judge_answer(log, words, deeds, is_whole),
    ]


def _judge_approval(
    log: list[AgentEvent], words: list[Word], deeds: Deeds, is_whole: bool
) -> list[str]:
    said = [word for word in words if word.command in ("approve", "deny")]
    first = {word.command for word in first_of(said)}
    is_accepted = any(word.accepted_at < math.inf for word in said)
    found = []
    if deeds.called > 1:
        found.append(f"a call was made {deeds.called} times")
    if deeds.called and "approve" not in first:
        found.append("a call was made that nobody approved, or that was denied before")
    if is_whole and is_accepted and not deeds.called and "deny" not in first:
        found.append("a call that was approved was not made")
    asked = [event.data["call_id"] for event in log if event.type is EventType.APPROVAL_REQUIRED]
    outcomes = {
        event.data["call_id"]: event.data["outcome"]
        for event in log
        if event.type is EventType.TOOL_CALL_END
    }
    told = [outcomes.get(call_id) for call_id in asked]
    if is_whole and told and told != ["ok" if deeds.called else "denied"]:
        found.append(f"the log tells {told} of a call that was made {deeds.called} times")
    return found


def _judge_answer(
    log: list[AgentEvent], words: list[Word], deeds: Deeds, is_whole: bool
) -> list[str]:
    said = [word for word in words if word.command == "answer"]
    is_accepted = any(word.accepted_at < math.inf for word in said)
    found = []
    if len(deeds.heard) > 1:
        found.append(f"one question heard {len(deeds.heard)} answers")
    if not {word.text for word in first_of(said)}.issuperset(deeds.heard):
        found.append("a question heard what nobody had answered, or not as the first")
    if is_whole and is_accepted and not deeds.heard:
        found.append("an answer that was accepted has not reached its question")
    told = [event.data["text"] for event in log if event.type is EventType.INPUT_RESOLVED]
    if is_whole and told != deeds.heard:
        found.append("the log tells another answer than was heard")
    return found
