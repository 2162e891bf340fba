"""What the kit needs of Hypothesis beyond what that promises: which example runs, and its choices.

Of its private parts it touches ``control.current_build_context``, the ``data.choices`` of what that
gives, ``core.encode_failure``, and two attributes of a test. Without them tests run as ever; only a
replay then searches for its arguments. Hypothesis is never imported for this: who uses it has it
loaded.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def current_example() -> Any:
    """The one running of a test's body that happens now, as an object of Hypothesis's; or None."""
    control = sys.modules.get("hypothesis.control")
    if control is None or not control.currently_in_test_context():
        return None
    return control.current_build_context()


def drawn_for(example: Any) -> str | None:
    """All that was drawn for an example, for `drawing`; None for none.

    Empty if nothing was, as for what an ``@example`` gives.
    """
    if example is None:
        return None
    try:
        from hypothesis.core import encode_failure

        choices = example.data.choices
        return encode_failure(choices).decode() if choices else ""
    except (ImportError, AttributeError):
        return ""


@contextmanager
def drawing(test: Callable[..., Any], drawn: str) -> Iterator[None]:
    """Have a test of Hypothesis run its body once in the block, on what was drawn before.

    Raises:
      DidNotReproduce: the test draws something else by now.

    """
    import hypothesis
    from hypothesis.errors import DidNotReproduce

    handle: Any = getattr(test, "hypothesis")  # noqa: B009 - added by Hypothesis
    body, has_passed = handle.inner_test, False

    @functools.wraps(body)
    def noting(*args: Any, **kwargs: Any) -> None:
        nonlocal has_passed
        body(*args, **kwargs)
        has_passed = True

    handle.inner_test = noting
    function = getattr(test, "__func__", test)
    hypothesis.reproduce_failure(hypothesis.__version__, drawn.encode())(function)
    try:
        yield
    except DidNotReproduce:
        # It takes a test that passes for a mistake, and here that is what one works for.
        if not has_passed:
            raise
    finally:
        handle.inner_test = body


_SETTINGS = "_hypothesis_internal_use_settings"


@contextmanager
def only_examples(test: Callable[..., Any]) -> Iterator[None]:
    """Have a test of Hypothesis run its ``@example`` cases alone in the block, if it has any."""
    import hypothesis

    function = getattr(test, "__func__", test)
    given = getattr(function, _SETTINGS, None)
    if given is None or not getattr(function, "hypothesis_explicit_examples", None):
        yield
        return
    explicit = hypothesis.settings(given, phases=[hypothesis.Phase.explicit])
    setattr(function, _SETTINGS, explicit)
    try:
        yield
    finally:
        setattr(function, _SETTINGS, given)
