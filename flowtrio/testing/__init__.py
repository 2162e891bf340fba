"""What tests of agents need: the laws as a checker, and models that say what they are told.

Importing this needs neither pytest nor Hypothesis.
"""

from __future__ import annotations

from flowtrio._core._util import publish as _publish
from flowtrio.testing._checks import LawBroken as LawBroken
from flowtrio.testing._checks import Violation as Violation
from flowtrio.testing._checks import check_events as check_events
from flowtrio.testing._checks import find_violations as find_violations
from flowtrio.testing._event_store import check_event_store as check_event_store
from flowtrio.testing._requests import check_messages as check_messages
from flowtrio.testing._scripted import CUT as CUT
from flowtrio.testing._scripted import ScriptedModel as ScriptedModel
from flowtrio.testing._scripted import ScriptedReply as ScriptedReply
from flowtrio.testing._scripted import ScriptedRequest as ScriptedRequest
from flowtrio.testing._scripted import Step as Step

_publish(__name__, [value for name, value in globals().items() if not name.startswith("_")])
