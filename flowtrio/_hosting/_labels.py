"""Counts by label: which model spent what, which tool failed, why runs do.

Whoever watches keeps a series for each value that a label has had. So a label has so many values
and no more, whatever clients call the tools that they bring: all that come later are *other*.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any, Final

import attrs

from flowtrio._core._chunks import MONEY
from flowtrio._core._events import AgentEvent, EventType

from ._histogram import Histogram

OTHER: Final = "other"
_MOST: Final = 100
"""Values of one label."""
_LONGEST: Final = 128
"""Characters of one."""
_KINDS: Final = ("prompt", "completion", "cached", "reasoning")


@attrs.define(eq=False)
class Label:
    """The values that a label has had."""

    _known: set[str] = attrs.field(factory=set, init=False)

    def value_of(self, name: object) -> str:
        """Give *name* as a value: itself, or *other* where there are enough."""
        text = str(name or "unknown")
        if len(text) > _LONGEST:
            return OTHER
        if text not in self._known and len(self._known) >= _MOST:
            return OTHER
        self._known.add(text)
        return text


@attrs.define(eq=False)
class Labelled:
    """What the hosted runs of one orchestrator did, by what did it."""

    tokens: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """By model, and whether they are of prompts or completions; cached ones are of the former,
    reasoning is of the latter."""
    costs: dict[str, Decimal] = attrs.field(factory=dict, init=False)
    """By model."""
    replies: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """By model, and why they ended."""
    first_tokens: defaultdict[str, Histogram] = attrs.field(
        factory=lambda: defaultdict(Histogram), init=False
    )
    """From a request to the first token, by model."""
    calls: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """By tool and outcome."""
    call_times: defaultdict[str, Histogram] = attrs.field(
        factory=lambda: defaultdict(Histogram), init=False
    )
    """By tool."""
    errors: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """Runs that failed, by code and source."""
    _models: Label = attrs.field(factory=Label, init=False)
    _tools: Label = attrs.field(factory=Label, init=False)
    _codes: Label = attrs.field(factory=Label, init=False)

    def note(self, event: AgentEvent) -> None:
        """Count what an event tells."""
        data = event.data
        match event.type:
            case EventType.MESSAGE_COMPLETE if data["duration"] is not None:
                # What an agent says by itself has none.
                self._note_reply(data)
            case EventType.TOOL_CALL_END:
                tool = self._tools.value_of(data["tool_name"])
                self.calls[tool, data["outcome"]] += 1
                if data["duration"] is not None:
                    self.call_times[tool].add(data["duration"])
            case EventType.ERROR:
                self.errors[self._codes.value_of(data["code"]), data["source"]] += 1

    def _note_reply(self, data: dict[str, Any]) -> None:
        model = self._models.value_of(data["model"] or data["requested_model"])
        self.replies[model, data["finish_reason"]] += 1
        if data["first_token"] is not None:
            self.first_tokens[model].add(data["first_token"])
        usage = data["usage"]
        if usage is None:
            return
        for kind in _KINDS:
            self.tokens[model, kind] += usage[f"{kind}_tokens"]
        if usage["cost"] is not None:
            spent = self.costs.get(model, Decimal(0))
            self.costs[model] = MONEY.add(spent, Decimal(usage["cost"]))
