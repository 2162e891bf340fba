"""How hosts answer in OpenAI's two protocols: text, and one call. See `native_hosts`."""

from __future__ import annotations

from .model_server import Answer, says
from .model_server import calls as calls_in_chat
from .native_hosts import CALL, WORDS
from .responses import answers, call, message, reasoning


def chat_answers(*, calls: bool = False) -> Answer:
    """Text, or one call."""
    return calls_in_chat(CALL) if calls else says(*WORDS)


def responses_answers(*, calls: bool = False) -> Answer:
    """Text, or a thought and one call."""
    if calls:
        return answers(reasoning("I look at Paris."), call(*CALL))
    return answers(message("".join(WORDS)))
