"""The interfaces: what flowtrio asks of the parts that others may bring."""

from __future__ import annotations

from flowtrio._core._parts import Part as Part
from flowtrio._core._util import publish as _publish
from flowtrio.abc._access import Authenticate as Authenticate
from flowtrio.abc._access import Caller as Caller
from flowtrio.abc._access import CannotAuthenticate as CannotAuthenticate
from flowtrio.abc._access import NotAuthenticated as NotAuthenticated
from flowtrio.abc._access import Request as Request
from flowtrio.abc._agents import AgentLike as AgentLike
from flowtrio.abc._agents import AroundAgent as AroundAgent
from flowtrio.abc._agents import AroundModel as AroundModel
from flowtrio.abc._agents import AroundTool as AroundTool
from flowtrio.abc._agents import Toolset as Toolset
from flowtrio.abc._models import LLMClient as LLMClient
from flowtrio.abc._models import Message as Message
from flowtrio.abc._models import ToolSpec as ToolSpec
from flowtrio.abc._shared import WORK as WORK
from flowtrio.abc._shared import Listening as Listening
from flowtrio.abc._shared import SharedStatistics as SharedStatistics
from flowtrio.abc._shared import SharedStore as SharedStore
from flowtrio.abc._stores import ConversationStore as ConversationStore
from flowtrio.abc._stores import DescribedConversations as DescribedConversations
from flowtrio.abc._stores import EventStore as EventStore
from flowtrio.abc._stores import ListedRun as ListedRun
from flowtrio.abc._stores import RecoverableConversations as RecoverableConversations
from flowtrio.abc._stores import RunHeader as RunHeader
from flowtrio.abc._stores import RunOptions as RunOptions
from flowtrio.abc._telemetry import RunTelemetry as RunTelemetry
from flowtrio.abc._telemetry import Telemetry as Telemetry
from flowtrio.abc._telemetry import TelemetryPerRun as TelemetryPerRun

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
