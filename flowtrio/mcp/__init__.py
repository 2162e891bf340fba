"""MCP, in both directions: a server's tools for agents, and an agent as a server's tool."""

try:
    import mcp as _mcp  # noqa: F401
except ImportError as _exc:
    raise ImportError(
        f"flowtrio.mcp needs {_exc.name!r}: pip install 'flowtrio[mcp]'", name=_exc.name
    ) from None

from flowtrio._core._util import publish as _publish
from flowtrio.mcp._content import McpToolFailed as McpToolFailed
from flowtrio.mcp._serve import mcp_server as mcp_server
from flowtrio.mcp._serve import serve_mcp as serve_mcp
from flowtrio.mcp._tools import McpTools as McpTools
from flowtrio.mcp._tools import mcp_tools as mcp_tools

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
