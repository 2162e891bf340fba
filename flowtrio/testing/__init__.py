"""For people who test: the laws on a log, and parts to play a run with.

Importing this needs neither pytest nor Hypothesis.
"""

from ._checks import LawBroken as LawBroken
from ._checks import Violation as Violation
from ._checks import check_events as check_events
from ._checks import find_violations as find_violations
