"""Tools: typed functions that a model may call.

A tool's signature is its contract. From it come the JSON Schema that the model is told, and the
strict decoding of what the model answers: what does not fit never reaches the function.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import attrs

from flowtrio._core._fit import fit_name
from flowtrio._core._limits import is_time, is_wait, is_whole
from flowtrio._core._values import clean_text, copy_json, told

from ._docstrings import parse_docstring
from ._schema import SchemaForm, Validate
from ._signature import SignatureForm

P = ParamSpec("P")
R = TypeVar("R")
_P = ParamSpec("_P")
_R = TypeVar("_R")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the providers accept as a function's name."""

_MAX_LAYERS = 100
"""Wrappers around a function; what has more makes a new one each time it is asked."""


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_question(value: Any) -> bool:
    # What an async function gives is true whatever it would have said.
    return _is_bool(value) or (callable(value) and not inspect.iscoroutinefunction(value))


def _are_errors(value: Any) -> bool:
    kinds = value if isinstance(value, tuple) else (value,)
    return bool(kinds) and all(isinstance(k, type) and issubclass(k, Exception) for k in kinds)


_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "timeout": (lambda value: value is None or is_time(value), "seconds above 0, or None"),
    "retries": (lambda value: is_whole(value, 0), "a whole number, at least 0"),
    "concurrency": (
        lambda value: value is None or is_whole(value, 1),
        "a whole number, at least 1, or None",
    ),
    "needs_approval": (_is_question, "a bool, or a plain function of the arguments"),
    "backoff": (is_wait, "seconds, 0 or more"),
    "retry_on": (_are_errors, "an exception class, or a tuple of them"),
    "abandon": (_is_bool, "a bool"),
    "fatal": (_is_bool, "a bool"),
}
"""What `tool` takes besides a name, and what each may be."""


class Form(Protocol):
    """What a tool's arguments look like: told to a model, and made into those of its function."""

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of them: one object, without a ``$ref`` at the top."""
        ...

    @property
    def context_parameter(self) -> str | None:
        """The function's parameter that gets the `RunContext`, or None."""
        ...

    def decode(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Make JSON arguments, which are the function's to keep, into its keyword arguments.

        Raises:
          ValueError: they do not fit; says where, and what was expected.

        """
        ...


@attrs.frozen(eq=False, kw_only=True)
class Tool(Generic[P, R]):
    """A function that a model may call. Made by `tool`; calling it calls the function."""

    fn: Callable[P, R] = attrs.field(repr=False)
    """The function."""
    name: str
    """What the model calls it."""
    description: str = attrs.field(repr=False)
    """What the model is told of it: the docstring's leading text."""
    is_async: bool
    """Whether it runs in the run's own task; a plain function runs in a worker thread."""
    timeout: float | None = None
    """Seconds from its START; None for ``Limits.tool``."""
    retries: int = 0
    """How often it is tried again when it raises; all tries share one timeout."""
    backoff: float = 0.0
    """Seconds before it is tried again; each time twice as many."""
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception
    """What it may raise to be tried again."""
    concurrency: int | None = None
    """Calls at once, of all runs in one Trio loop; None for no limit."""
    needs_approval: bool | Callable[[dict[str, Any]], bool] = False
    """Whether a person is asked first; or a function of the arguments that says so."""
    abandon: bool = False
    """Whether the worker thread of a plain function may outlive its run."""
    fatal: bool = False
    """Whether the run fails when it raises."""
    given_name: str | None = attrs.field(default=None, repr=False)
    """What it is called where it comes from, if that is no name that every provider takes."""
    _form: Form = attrs.field(repr=False, alias="form")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, outside any run."""
        return self.fn(*args, **kwargs)

    @property
    def __wrapped__(self) -> Callable[P, R]:
        """The function, as `inspect` looks for it: a tool has its signature."""
        return self.fn

    @staticmethod
    def from_schema(
        fn: Callable[_P, _R],
        *,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        validate: Validate | None = None,
        **options: Any,
    ) -> Tool[_P, _R]:
        """Make a tool whose arguments a JSON Schema describes, instead of a signature.

        The arguments are checked before *fn* sees them, by `jsonschema` (``flowtrio[schema]``). A
        name that no provider takes is made fit: ``files/read`` becomes ``files_read``, and where
        two become one, the names of one agent's tools are kept apart.

        Args:
          fn: A function of the arguments, a dict; or of a `RunContext` and them.
          name: What it is called.
          description: What the model is told of it.
          parameters: JSON Schema of an object. It may refer to its own ``$defs``.
          validate: A function of the arguments that checks them instead: it raises, or gives
            False, for those that do not fit.
          options: See `Tool`: ``timeout retries concurrency needs_approval abandon fatal``.

        Raises:
          ImportError: `jsonschema` is missing, and there is no *validate*.
          TypeError: *fn* or *validate* is no such function, or an option is unknown.
          ValueError: *parameters* is no such schema, or an option is out of its range.

        """
        return _make_schema_tool(fn, name, description, parameters, validate, options)

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of its arguments: one object, without a ``$ref`` at the top."""
        return self._form.parameters

    @property
    def context_parameter(self) -> str | None:
        """The parameter that gets the `RunContext`, or None."""
        return self._form.context_parameter

    def spec(self) -> dict[str, Any]:
        """The tool as clients are told of it; see `flowtrio.abc.ToolSpec`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                # A client may change what it is given: strict modes want more keys.
                "parameters": copy_json(self.parameters),
            },
        }

    def decode(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Convert JSON arguments into the function's keyword arguments, strictly.

        Raises:
          ValueError: they do not fit the schema; says where, and what was expected.

        """
        try:
            return self._form.decode(arguments)
        except ValueError as exc:
            raise ValueError(f"arguments of {self.name!r}: {exc}") from None


@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    timeout: float | None = None,
    retries: int = 0,
    backoff: float = 0.0,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    concurrency: int | None = None,
    needs_approval: bool | Callable[[dict[str, Any]], bool] = False,
    abandon: bool = False,
    fatal: bool = False,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(fn: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function: ``@tool`` or ``@tool(timeout=20, …)``.

    Every parameter needs an annotation that has a JSON form; one annotated `RunContext` gets the
    context and is not told to the model. Descriptions come from the docstring (Google, NumPy or
    Sphinx style). Async functions run in the run's nursery, plain ones in a worker thread.

    Args:
      fn: The function.
      options: ``name timeout retries backoff retry_on concurrency needs_approval abandon fatal``;
        see `Tool`.

    Raises:
      TypeError: the function cannot be a tool; says why.
      ValueError: an option is out of its range.

    """
    if fn is None:
        return functools.partial(_make_tool, options)
    return _make_tool(options, fn)


def as_tool(fn: Tool[..., Any] | Callable[..., Any]) -> Tool[..., Any]:
    """Give *fn* if it is a tool, else make one of it with all options at their defaults."""
    if isinstance(fn, Tool):
        return fn
    if not inspect.isfunction(fn):
        return _make_tool({}, fn)
    # Made once for each function and kept with it: making one is dear. Whatever copies __dict__, as
    # functools.wraps does, copies this too, so only the tool of this very function counts.
    made: Tool[..., Any] | None = fn.__dict__.get("_flowtrio_tool")
    if made is None or made.fn is not fn:
        made = fn.__dict__["_flowtrio_tool"] = _make_tool({}, fn)
    return made


# Making a tool


def _make_tool(options: dict[str, Any], fn: Callable[..., Any]) -> Tool[..., Any]:
    if not callable(fn) or isinstance(fn, type | Tool):
        raise TypeError(f"tool: expected a function, got {fn!r}")
    layers = _layers(fn)
    target, innermost = _called(fn), _called(layers[-1])
    inner = next((layer for layer in layers if isinstance(layer, Tool)), None)
    # What stands around a tool stands in its place: approval and limits hold for it as well.
    options = {**_options_of(inner), **options}
    name = options.pop("name", None) or _name_of(fn)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"tool name {told(name)}: expected 1 to 64 of A-Z a-z 0-9 _ -")
    _check_returns(name, target)
    _check_options(name, options)
    # A wrapper around a function may have a text of its own; one around a partial or a Tool has
    # that of their classes.
    documented = fn if all(map(inspect.isroutine, layers)) else innermost
    description, texts = parse_docstring(inspect.getdoc(documented) or "")
    return Tool(
        fn=fn,
        name=name,
        description=description,
        is_async=inspect.iscoroutinefunction(target),
        form=SignatureForm.of(name, fn, innermost, texts),
        **options,
    )


def _make_schema_tool(
    fn: Callable[_P, _R],
    name: str,
    description: str,
    parameters: Mapping[str, Any],
    validate: Validate | None,
    options: dict[str, Any],
) -> Tool[_P, _R]:
    if not callable(fn) or isinstance(fn, type | Tool):
        raise TypeError(f"Tool.from_schema: expected a function, got {fn!r}")
    for what, text in (("name", name), ("description", description)):
        if not isinstance(text, str) or (what == "name" and not text):
            raise ValueError(f"Tool.from_schema: {what}={told(text)}: expected a text")
    target = _called(fn)
    _check_returns(name, target)
    _check_options(name, options)
    fit = fit_name(name)
    return Tool(
        fn=fn,
        name=fit,
        description=clean_text(description),
        is_async=inspect.iscoroutinefunction(target),
        form=SchemaForm.of(name, fn, parameters, validate),
        given_name=None if fit == name else name,
        **options,
    )


def _check_returns(name: str, target: Any) -> None:
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        raise TypeError(
            f"tool {name!r} yields: expected a function that returns; report progress with "
            "await ctx.progress(value)"
        )


def _layers(fn: Any) -> list[Any]:
    """A callable and what stands behind it: behind partials and wrappers, outermost first."""
    layers: list[Any] = []
    while fn is not None and len(layers) < _MAX_LAYERS and all(fn is not made for made in layers):
        layers.append(fn)
        fn = fn.func if isinstance(fn, functools.partial) else getattr(fn, "__wrapped__", None)
    return layers


def _called(fn: Any) -> Any:
    """The function behind partials, tools, bound methods and callable objects."""
    fn = _without_partials(fn)
    if not (inspect.isfunction(fn) or inspect.ismethod(fn) or inspect.isbuiltin(fn)):
        return type(fn).__call__
    return fn


def _without_partials(fn: Any) -> Any:
    while isinstance(fn, functools.partial | Tool | staticmethod):
        # A class's body holds its static methods as they are, and `tool` may stand there.
        fn = fn.func if isinstance(fn, functools.partial) else fn.__wrapped__
    return fn


def _name_of(fn: Any) -> Any:
    fn = _without_partials(fn)
    return getattr(fn, "__name__", type(fn).__name__)


def _options_of(inner: Tool[..., Any] | None) -> dict[str, Any]:
    if inner is None:
        return {}
    return {option: getattr(inner, option) for option in ("name", *_OPTIONS)}


def _check_options(name: str, options: dict[str, Any]) -> None:
    if unknown := set(options) - set(_OPTIONS):
        raise TypeError(f"tool {name!r}: unknown options {', '.join(sorted(unknown))}")
    for option, value in options.items():
        fits, expected = _OPTIONS[option]
        if not fits(value):
            raise ValueError(f"tool {name!r}: {option}={told(value)}: expected {expected}")
