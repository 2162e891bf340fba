"""Other people's protocols, spoken by a server beside flowtrio's own.

For ``create_app(..., protocols=[...])``; ``flowtrio serve`` speaks them by default. Each protocol
is one room: it reads requests, and its *mapper* tells a run's log in the protocol's words.
"""

from __future__ import annotations

from flowtrio._core._util import publish as _publish
from flowtrio.protocols._agui._routes import AGUIProtocol as AGUIProtocol
from flowtrio.protocols._ai_sdk._routes import AISDKProtocol as AISDKProtocol
from flowtrio.protocols._durable_streams import DurableStreamsProtocol as DurableStreamsProtocol
from flowtrio.protocols._openai._routes import OpenAIProtocol as OpenAIProtocol

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
