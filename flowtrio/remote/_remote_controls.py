"""What can be done to a run on a server: commands that are sent, and sent again after a drop."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from flowtrio._core._parts import Part, read_message
from flowtrio._core._values import check_json
from flowtrio.wire._sent_parts import encode_sent


class RemoteControls:
    """The controls of a run on a server."""

    __slots__ = ("_is_cancelled",)

    _is_cancelled: bool
    """Whether this reader has cancelled it."""

    def cancel(self, reason: str | None = None) -> bool:
        """See `EventStream.cancel`; False also if this reader asked for it before."""
        if self._is_cancelled:
            return False
        self._is_cancelled = self._control("cancel", reason=reason)
        return self._is_cancelled

    def cancel_tool(self, call_id: str) -> bool:
        """See `EventStream.cancel_tool`."""
        return self._control("cancel_tool", call_id=call_id)

    def approve(self, call_id: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """See `EventStream.approve`; arguments that do not fit change nothing."""
        given = None if arguments is None else check_json(dict(arguments), "arguments")
        return self._control("approve", call_id=call_id, arguments=given)

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """See `EventStream.deny`."""
        return self._control("deny", call_id=call_id, reason=reason)

    def answer(self, request_id: str, value: Any) -> bool:
        """See `EventStream.answer`; an answer that does not fit changes nothing."""
        return self._control("answer", request_id=request_id, text=check_json(value, "value"))

    def dismiss(self, request_id: str, reason: str | None = None) -> bool:
        """See `EventStream.dismiss`."""
        return self._control("dismiss", request_id=request_id, reason=reason)

    def post(
        self,
        message: str | Sequence[Part],
        interrupt: bool = False,
        *,
        post_id: str | None = None,
    ) -> bool:
        """See `EventStream.post`; where no reply follows, no USER_MESSAGE comes."""
        said = encode_sent(read_message(message))
        # Sent again where its reply was lost, it is not said again.
        name = secrets.token_hex(8) if post_id is None else post_id
        return self._control("post", **said, interrupt=interrupt, post_id=name)

    @abstractmethod
    def _control(self, type: str, **keys: Any) -> bool:
        """Send a command; True if the run goes on as far as we know."""
