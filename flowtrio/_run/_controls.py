"""What a run's reader may do to it, from any thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from flowtrio._core._parts import read_message
from flowtrio._core._values import check_json, clean_text

from ._pending import Answered, Approved, Declined, Denied, Unfit

if TYPE_CHECKING:
    from flowtrio._core._parts import Part

    from ._pending import Decision
    from ._run import Run


class Controls:
    """The controls of one run; an `EventStream` has them.

    They are synchronous, idempotent and may be called from any thread; they tell whether they took
    effect.
    """

    __slots__ = ("_run", "_thread")

    _run: Run
    _thread: int | None
    """The run's, once it has begun."""

    def cancel(self, reason: str | None = None) -> bool:
        """End the run on purpose: its log ends with status ``cancelled`` and no ERROR."""
        words = None if reason is None else self._words(reason, "reason")
        return self._in_loop(lambda: self._run.cancel(words))

    def cancel_tool(self, call_id: str) -> bool:
        """End one tool call with outcome ``cancelled``; the run goes on and the model is told."""
        key = _words(call_id, "call_id")
        return self._in_loop(lambda: self._run.log.opened.cancel_call(key))

    def approve(self, call_id: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """Let a call go on that waits for approval, with other *arguments* where they are given.

        Those are decoded as the model's are. What does not fit is refused, and the call goes on
        waiting; what fits is told in TOOL_CALL_START, and stands in the conversation.

        Raises:
          TypeError: *arguments* are no JSON.
          ValueError: they do not fit the tool.

        """
        key = _words(call_id, "call_id")
        if arguments is None:
            return self._decide(key, Approved())
        if not isinstance(arguments, Mapping):
            raise TypeError(f"arguments: expected a dict, got {type(arguments).__name__}")
        return self._decide(key, Approved(self._json(dict(arguments), "arguments")))

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """Refuse a call that waits for approval; the model is told, with the *reason*."""
        words = None if reason is None else self._words(reason, "reason")
        return self._decide(_words(call_id, "call_id"), Denied(words))

    def answer(self, request_id: str, value: Any) -> bool:
        """Answer a question of the agent, with a text; with JSON where it tells a schema.

        A text stands for the JSON that is written in it, where that fits, else for itself. What
        does not fit is refused, and the question goes on waiting.

        Raises:
          TypeError: *value* is no JSON.
          ValueError: it is not what was asked for.

        """
        key = _words(request_id, "request_id")
        if isinstance(value, str):
            return self._decide(key, Answered(self._words(value, "value")))
        return self._decide(key, Answered(self._json(value, "value")))

    def dismiss(self, request_id: str, reason: str | None = None) -> bool:
        """Decline to answer a question; what asked is told, with the *reason*."""
        words = None if reason is None else self._words(reason, "reason")
        return self._decide(_words(request_id, "request_id"), Declined(words))

    def post(
        self,
        message: str | Sequence[Part],
        interrupt: bool = False,
        *,
        post_id: str | None = None,
    ) -> bool:
        """Say something to the model while the run goes on, before its next reply.

        It is told as USER_MESSAGE where it is taken, behind the results of the calls that run now,
        or else when the run ends.

        Args:
          message: What the user says: a text, or a list of `Text`, `Image` and `File`.
          interrupt: Cut the reply that is being written now; it is kept and marked as partial, and
            its calls do not run.
          post_id: A name of its own. A message with the name of one that was taken in is that one,
            so who has lost the answer may post again.

        Returns:
          Whether it was taken in; False where no reply follows.

        """
        said = read_message(message)
        self._run.info.check_length(said.text, "message")
        key = None if post_id is None else _words(post_id, "post_id")
        inbox = self._run.inbox
        return self._in_loop(lambda: inbox.post(said, interrupt=interrupt, post_id=key))

    def _json(self, value: Any, what: str) -> Any:
        return check_json(value, what, limit_bytes=self._run.info.limits.result_bytes)

    def _words(self, text: str, what: str) -> str:
        words = _words(text, what)
        self._run.info.check_length(words, what)
        return words

    def _decide(self, key: str, decision: Decision) -> bool:
        log = self._run.log
        return self._in_loop(lambda: not log.is_closing and log.opened.decide(key, decision))

    def _in_loop(self, fn: Callable[[], bool]) -> bool:
        """Do what somebody outside asks for in the run's Trio loop, from wherever we are."""
        took_effect = self._reach(lambda: self._call(fn))
        if isinstance(took_effect, Unfit):
            raise took_effect
        return took_effect

    def _reach(self, fn: Callable[[], bool | Unfit]) -> bool | Unfit:
        token = self._run.token
        if token is None or threading.get_ident() == self._thread:
            return fn()
        answer: queue.SimpleQueue[bool | Unfit] = queue.SimpleQueue()
        try:
            token.run_sync_soon(lambda: answer.put(fn()))
        except trio.RunFinishedError:
            return False
        return answer.get()

    def _call(self, fn: Callable[[], bool]) -> bool | Unfit:
        """Do what somebody outside asks for; nothing of it may reach the loop, or be waited for."""
        try:
            return fn()
        except Unfit as exc:
            return exc
        except Exception as exc:
            self._run.fail(exc, "internal")
            return False


def run_of(stream: Controls) -> Run:
    """The run behind a stream: for who hosts it, or looks at it from outside."""
    return stream._run


def fail_run(stream: Controls, code: str, source: str, error: str) -> bool:
    """End a stream's run with an ERROR: for servers that are told to stop, from any thread."""
    return stream._in_loop(lambda: stream._run.end_with_error(code, source, error))


def _words(text: str, what: str) -> str:
    """What a control was given, as plain text.

    Raises:
      TypeError: it is no text.

    """
    if not isinstance(text, str):
        raise TypeError(f"{what}: expected a str, got {type(text).__name__}")
    return clean_text(str.__str__(text))
