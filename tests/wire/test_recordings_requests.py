"""What recorded replies want to have back, as a request: only where the recordings are."""

from __future__ import annotations

import pytest
from anthropic.types.beta import BetaMessageParam

from flowtrio._core._chunks import CompletionBuilder
from flowtrio._core._exceptions import ProviderError
from flowtrio.wire._anthropic import anthropic_decoder
from flowtrio.wire._anthropic_requests import encode_request
from tests.support.recordings import recordings_of
from tests.support.sdk_types import check_typed
from tests.wire.test_anthropic_requests import HELLO, call, carrying


@pytest.mark.parametrize(
    "data", [pytest.param(r.data, id=r.id) for r in recordings_of({"anthropic"})]
)
def test_what_recorded_replies_carry_is_what_the_sdk_would_send(data: bytes) -> None:
    decoder, builder, completion = anthropic_decoder(), CompletionBuilder(), None
    try:
        for chunk in [*decoder.receive_data(data), *decoder.end_of_data()]:
            completion = builder.add(chunk)
    except ProviderError:
        pass
    carry = None if completion is None else completion.carry
    calls = [call(c.id, c.name, c.raw) for c in completion.tool_calls] if completion else []
    message = carrying((carry or {}).get("anthropic"), tool_calls=calls)
    body = encode_request("m", [*HELLO, message], None, {}, stream=True)

    for sent in body["messages"]:
        check_typed(BetaMessageParam, sent)
