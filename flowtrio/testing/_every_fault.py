"""`every_fault`: a run that is struck at each place where it can be, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ._faults import KINDS, Fault
from ._readers import Reader
from ._schedule import Schedule
from ._simulate import as_schedule, simulate
from ._simulated import SimulatedRun

if TYPE_CHECKING:
    from flowtrio._core._limits import Limits
    from flowtrio._core._parts import Part
    from flowtrio.abc import AgentLike, LLMClient, Message


def every_fault(
    agent: AgentLike,
    message: str | Sequence[Part],
    *,
    app: Callable[[], Any] | None = None,
    kinds: str | Iterable[str] = KINDS,
    model: LLMClient | None = None,
    reader: Reader | None = None,
    schedule: Schedule | Iterable[int] | int | None = None,
    limits: Limits | None = None,
    history: Sequence[Message] = (),
) -> Iterator[SimulatedRun]:
    """Simulate a run undisturbed, then again for each place where a fault can strike it.

    The first run counts the places: where each of its tools waits, and the scheduler's steps until
    the run begins to end. Each further one has one `Fault`, see `SimulatedRun.struck`, and is
    otherwise the same; there is none for a fault that takes no effect. They are simulated as they
    are asked for, so the first that breaks a property is the last one played.

    Args:
      agent: As for `simulate`; its model has to answer the same requests alike each time.
      message: What the user says.
      app: Makes what agents and tools find as ``ctx.app``, anew for each run, which has it too.
      kinds: Kinds of faults, in the order in which they strike; all, those of tools first.
      model: As for `simulate`, as all that follows.
      reader: Who reads and answers.
      schedule: Who goes next.
      limits: Limits of the run.
      history: The conversation so far.

    Raises:
      TypeError: *app* cannot be called.
      ValueError: there is no such kind, or none is given.
      AssertionError: nothing can be struck, or a run came not to where the first one was.

    """
    if not (app is None or callable(app)):
        raise TypeError(f"every_fault(app={type(app).__name__}): expected a function that makes it")
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if not kinds:
        raise ValueError(f"every_fault(kinds=()): expected some of {', '.join(KINDS)}")
    for kind in kinds:
        Fault(kind)
    play = partial(
        simulate,
        agent,
        message,
        model=model,
        reader=reader,
        schedule=as_schedule(schedule),
        limits=limits,
        history=history,
    )
    return _struck_runs(play, app or (lambda: None), kinds)


def _struck_runs(
    play: Callable[..., SimulatedRun], app: Callable[[], Any], kinds: Sequence[str]
) -> Iterator[SimulatedRun]:
    first = play(app=app())
    yield first
    places = first.places(*kinds)
    if not places:
        raise AssertionError(f"no place for {', '.join(kinds)}: the run ended without a tool call")
    for fault in places:
        run = play(app=app(), faults=[fault])
        if fault not in run._came:
            raise AssertionError(
                f"{fault} struck nothing: the run did not come as far as the first one. Each needs "
                "all that it changes anew: what its tools use by app=, and a model that answers "
                "the same request alike, as SimulatedModel and FunctionModel do"
            )
        if run.struck:
            yield run
