"""What tests of agents need: the laws as a checker, models that say what they are told, simulation.

Importing this needs neither pytest nor Hypothesis; the strategies import Hypothesis when they are
asked for.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from flowtrio._core._util import publish as _publish
from flowtrio.pictures._text import text_timeline as text_timeline
from flowtrio.testing._check_client import MakeClient as MakeClient
from flowtrio.testing._check_client import check_llm_client as check_llm_client
from flowtrio.testing._checks import LawBroken as LawBroken
from flowtrio.testing._checks import Violation as Violation
from flowtrio.testing._checks import check_events as check_events
from flowtrio.testing._checks import find_violations as find_violations
from flowtrio.testing._event_store import check_event_store as check_event_store
from flowtrio.testing._every_fault import every_fault as every_fault
from flowtrio.testing._faults import Fault as Fault
from flowtrio.testing._leased_store import LeasedStore as LeasedStore
from flowtrio.testing._models import SimulatedFailure as SimulatedFailure
from flowtrio.testing._models import SimulatedModel as SimulatedModel
from flowtrio.testing._readers import Reader as Reader
from flowtrio.testing._recorder import RunRecorder as RunRecorder
from flowtrio.testing._recording import RecordingClient as RecordingClient
from flowtrio.testing._recording import ReplayClient as ReplayClient
from flowtrio.testing._requests import check_messages as check_messages
from flowtrio.testing._schedule import Deviation as Deviation
from flowtrio.testing._schedule import Schedule as Schedule
from flowtrio.testing._scripted import CUT as CUT
from flowtrio.testing._scripted import FunctionModel as FunctionModel
from flowtrio.testing._scripted import ScriptedModel as ScriptedModel
from flowtrio.testing._scripted import ScriptedReply as ScriptedReply
from flowtrio.testing._scripted import ScriptedRequest as ScriptedRequest
from flowtrio.testing._scripted import Step as Step
from flowtrio.testing._shared_store import check_shared_store as check_shared_store
from flowtrio.testing._simulate import RealWorld as RealWorld
from flowtrio.testing._simulate import simulate as simulate
from flowtrio.testing._simulated import SimulatedCall as SimulatedCall
from flowtrio.testing._simulated import SimulatedRun as SimulatedRun

if TYPE_CHECKING:
    from flowtrio.testing._strategies import faults as faults
    from flowtrio.testing._strategies import models as models
    from flowtrio.testing._strategies import readers as readers
    from flowtrio.testing._strategies import schedules as schedules

_LAZY = dict.fromkeys(("faults", "models", "readers", "schedules"), "flowtrio.testing._strategies")
"""Public names that need Hypothesis, with the module that has them."""

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(_import_module(_LAZY[name]), name)
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            f"flowtrio.testing.{name} needs {exc.name!r}: pip install 'flowtrio[testing]'",
            name=exc.name,
        ) from None
    _publish(__name__, [value])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY} - {"TYPE_CHECKING", "annotations"})
