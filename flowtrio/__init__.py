"""A Trio-native runtime for streaming LLM agents."""

from __future__ import annotations

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
from flowtrio._core._exceptions import FlowtrioError as FlowtrioError
from flowtrio._core._exceptions import LimitExceeded as LimitExceeded
from flowtrio._core._exceptions import LocalProtocolError as LocalProtocolError
from flowtrio._core._exceptions import ProtocolError as ProtocolError
from flowtrio._core._exceptions import ProviderError as ProviderError
from flowtrio._core._exceptions import RemoteProtocolError as RemoteProtocolError
from flowtrio._core._exceptions import ReplayGap as ReplayGap
from flowtrio._core._exceptions import RunCancelled as RunCancelled
from flowtrio._core._exceptions import RunFailed as RunFailed
from flowtrio._core._exceptions import ToolFailed as ToolFailed
from flowtrio._core._limits import Limits as Limits
from flowtrio._core._limits import ModelLimits as ModelLimits
from flowtrio._core._limits import ServerLimits as ServerLimits
from flowtrio._core._modes import project as project
from flowtrio._runtime._agent import Agent as Agent
from flowtrio._runtime._context import RunContext as RunContext
from flowtrio._runtime._engine import StreamEngine as StreamEngine
from flowtrio._runtime._orchestrator import Orchestrator as Orchestrator
from flowtrio._runtime._stream import EventStream as EventStream
from flowtrio._runtime._tools import Tool as Tool
from flowtrio._runtime._tools import tool as tool
from flowtrio.stores.memory import MemoryConversations as MemoryConversations
