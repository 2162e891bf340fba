"""Agents under ASGI: SSE, WebSocket and the page, on Hypercorn's trio worker."""

from __future__ import annotations

from flowtrio._core._util import publish as _publish
from flowtrio.serving.http.asgi import App as App
from flowtrio.serving.http.asgi import create_app as create_app

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
