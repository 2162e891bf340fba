"""Who a request is from: ready functions for ``authenticate``."""

from __future__ import annotations

from flowtrio._core._util import publish as _publish
from flowtrio.auth._jwt import JWTAuth as JWTAuth
from flowtrio.auth._tokens import TokenFile as TokenFile

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
