"""Values that are shown as the code that makes them again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs


class AsCode:
    """Shown as a call that gives an equal value: with what differs from the defaults, and no more.

    Hypothesis prints an example by the calls that drew it, which are ours and not the user's. So
    the examples have its `_repr_pretty_`, which is IPython's too.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        parts = (f"{name}={value!r}" if name else repr(value) for name, value in self._arguments())
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        with printer.group(4, f"{type(self).__name__}(", ")"):
            for place, (name, value) in enumerate(self._arguments()):
                if place:
                    printer.text(",")
                    printer.breakable()
                if name:
                    printer.text(f"{name}=")
                printer.pretty(value)

    def _arguments(self) -> Iterator[tuple[str, Any]]:
        """Names and values; the first one has no name where it may go without."""
        cls: Any = type(self)
        fields = [field for field in attrs.fields(cls) if field.init]
        for field in fields:
            value = getattr(self, field.name)
            if value != field.default:
                has_name = field.kw_only or field is not fields[0]
                shown = list(value) if isinstance(value, tuple) else value
                yield (field.name if has_name else "", shown)
