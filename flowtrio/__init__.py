"""A Trio-native runtime for streaming LLM agents."""

from __future__ import annotations

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING
from typing import Any as _Any

from flowtrio._agents._agent import Agent as Agent
from flowtrio._agents._client_tool import ClientTool as ClientTool
from flowtrio._agents._context import RunContext as RunContext
from flowtrio._agents._replies import CallResult as CallResult
from flowtrio._agents._tools import Tool as Tool
from flowtrio._agents._tools import tool as tool
from flowtrio._core._chunks import Chunk as Chunk
from flowtrio._core._chunks import Completion as Completion
from flowtrio._core._chunks import ToolArgs as ToolArgs
from flowtrio._core._chunks import ToolCall as ToolCall
from flowtrio._core._chunks import Usage as Usage
from flowtrio._core._events import AgentEvent as AgentEvent
from flowtrio._core._events import AgentStatus as AgentStatus
from flowtrio._core._events import EventType as EventType
from flowtrio._core._events import StreamMode as StreamMode
from flowtrio._core._exceptions import DeadlineExceeded as DeadlineExceeded
from flowtrio._core._exceptions import Fenced as Fenced
from flowtrio._core._exceptions import FlowtrioError as FlowtrioError
from flowtrio._core._exceptions import InputDeclined as InputDeclined
from flowtrio._core._exceptions import LimitExceeded as LimitExceeded
from flowtrio._core._exceptions import LocalProtocolError as LocalProtocolError
from flowtrio._core._exceptions import ProtocolError as ProtocolError
from flowtrio._core._exceptions import ProviderError as ProviderError
from flowtrio._core._exceptions import RemoteProtocolError as RemoteProtocolError
from flowtrio._core._exceptions import ReplayGap as ReplayGap
from flowtrio._core._exceptions import RunCancelled as RunCancelled
from flowtrio._core._exceptions import RunExists as RunExists
from flowtrio._core._exceptions import RunFailed as RunFailed
from flowtrio._core._exceptions import ToolDenied as ToolDenied
from flowtrio._core._exceptions import ToolFailed as ToolFailed
from flowtrio._core._limits import Limits as Limits
from flowtrio._core._limits import ModelLimits as ModelLimits
from flowtrio._core._limits import ServerLimits as ServerLimits
from flowtrio._core._modes import project as project
from flowtrio._core._parts import File as File
from flowtrio._core._parts import Image as Image
from flowtrio._core._parts import Text as Text
from flowtrio._core._requests import ModelRequest as ModelRequest
from flowtrio._core._util import publish as _publish
from flowtrio._hosting._engine import StreamEngine as StreamEngine
from flowtrio._hosting._follower import Follower as Follower
from flowtrio._hosting._orchestrator import Orchestrator as Orchestrator
from flowtrio._run._stream import EventStream as EventStream
from flowtrio.stores.memory import MemoryConversations as MemoryConversations
from flowtrio.stores.memory import MemoryStore as MemoryStore

if TYPE_CHECKING:
    from flowtrio.clients._anthropic import AnthropicClient as AnthropicClient
    from flowtrio.clients._azure import AzureOpenAIClient as AzureOpenAIClient
    from flowtrio.clients._dashscope import DashScopeClient as DashScopeClient
    from flowtrio.clients._demo import DemoClient as DemoClient
    from flowtrio.clients._fallback import FallbackClient as FallbackClient
    from flowtrio.clients._gemini import GeminiClient as GeminiClient
    from flowtrio.clients._ollama import OllamaClient as OllamaClient
    from flowtrio.clients._openai import OpenAIClient as OpenAIClient
    from flowtrio.remote._connect import connect as connect
    from flowtrio.serving.sockets.websocket import serve_websocket as serve_websocket
    from flowtrio.stores.redis._conversations import RedisConversations as RedisConversations
    from flowtrio.stores.redis._store import RedisStore as RedisStore
    from flowtrio.stores.sqlite import SQLiteConversations as SQLiteConversations
    from flowtrio.stores.sqlite import SQLiteStore as SQLiteStore

__all__ = [
    "Agent",
    "AgentEvent",
    "AgentStatus",
    "AnthropicClient",
    "AzureOpenAIClient",
    "CallResult",
    "Chunk",
    "ClientTool",
    "Completion",
    "DashScopeClient",
    "DeadlineExceeded",
    "DemoClient",
    "EventStream",
    "EventType",
    "FallbackClient",
    "Fenced",
    "File",
    "FlowtrioError",
    "Follower",
    "GeminiClient",
    "Image",
    "InputDeclined",
    "LimitExceeded",
    "Limits",
    "LocalProtocolError",
    "MemoryConversations",
    "MemoryStore",
    "ModelLimits",
    "ModelRequest",
    "OllamaClient",
    "OpenAIClient",
    "Orchestrator",
    "ProtocolError",
    "ProviderError",
    "RedisConversations",
    "RedisStore",
    "RemoteProtocolError",
    "ReplayGap",
    "RunCancelled",
    "RunContext",
    "RunExists",
    "RunFailed",
    "SQLiteConversations",
    "SQLiteStore",
    "ServerLimits",
    "StreamEngine",
    "StreamMode",
    "Text",
    "Tool",
    "ToolArgs",
    "ToolCall",
    "ToolDenied",
    "ToolFailed",
    "Usage",
    "connect",
    "project",
    "serve_websocket",
    "tool",
]
"""All public names, also those that are imported when they are first asked for."""

__version__ = _version("flowtrio")

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])

_LAZY = {
    "AnthropicClient": "flowtrio.clients._anthropic",
    "AzureOpenAIClient": "flowtrio.clients._azure",
    "DashScopeClient": "flowtrio.clients._dashscope",
    "DemoClient": "flowtrio.clients._demo",
    "FallbackClient": "flowtrio.clients._fallback",
    "GeminiClient": "flowtrio.clients._gemini",
    "OllamaClient": "flowtrio.clients._ollama",
    "OpenAIClient": "flowtrio.clients._openai",
    "RedisConversations": "flowtrio.stores.redis._conversations",
    "RedisStore": "flowtrio.stores.redis._store",
    "SQLiteConversations": "flowtrio.stores.sqlite",
    "SQLiteStore": "flowtrio.stores.sqlite",
    "connect": "flowtrio.remote._connect",
    "serve_websocket": "flowtrio.serving.sockets.websocket",
}
"""Names whose modules bring libraries of their own: imported when they are first asked for."""


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(_LAZY[name]), name)
    _publish(__name__, [value])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY} - {"TYPE_CHECKING", "annotations"})
