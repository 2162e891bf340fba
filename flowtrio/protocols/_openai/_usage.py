"""What a run has cost so far, so that each of its answers tells its own part."""

from __future__ import annotations

from typing import Any, Final

import attrs

from flowtrio._core._events import AgentEvent, EventType

_KINDS: Final = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")


@attrs.define(eq=False)
class Spent:
    """Tokens of a run: of its messages as they end, and at last what DONE says of all."""

    _all: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(_KINDS, 0), init=False)
    _before: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(_KINDS, 0), init=False)
    """What former answers of the run have told."""

    def feed(self, event: AgentEvent) -> None:
        """Take the log's next event."""
        usage = event.data.get("usage")
        if usage is None:
            return
        if event.type is EventType.MESSAGE_COMPLETE:
            for kind in _KINDS:
                self._all[kind] += usage[kind]
        elif event.type is EventType.DONE:
            # Replies that were discarded have no message of their own.
            self._all = {kind: max(usage[kind], self._all[kind]) for kind in _KINDS}

    def begin(self) -> None:
        """Another answer begins."""
        self._before = dict(self._all)

    def of_answer(self) -> dict[str, int]:
        """The tokens of the answer alone."""
        return {kind: self._all[kind] - self._before[kind] for kind in _KINDS}

    def of_chat(self) -> dict[str, Any]:
        """The same in the words of chat completions."""
        spent = self.of_answer()
        return {
            "prompt_tokens": spent["prompt_tokens"],
            "completion_tokens": spent["completion_tokens"],
            "total_tokens": spent["prompt_tokens"] + spent["completion_tokens"],
            "prompt_tokens_details": {"cached_tokens": spent["cached_tokens"]},
            "completion_tokens_details": {"reasoning_tokens": spent["reasoning_tokens"]},
        }

    def of_response(self) -> dict[str, Any]:
        """The same in the words of Responses."""
        spent = self.of_answer()
        return {
            "input_tokens": spent["prompt_tokens"],
            "input_tokens_details": {
                "cached_tokens": spent["cached_tokens"],
                "cache_write_tokens": 0,
            },
            "output_tokens": spent["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": spent["reasoning_tokens"]},
            "total_tokens": spent["prompt_tokens"] + spent["completion_tokens"],
        }
