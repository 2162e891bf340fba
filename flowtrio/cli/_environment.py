"""Options from the environment: ``--ws-port`` is ``FLOWTRIO_WS_PORT``, and so is every other one.

What stands there takes the place of an option's default, read in the same way. So it is told with
the name of its variable where it cannot be read, and an option that is given wins.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

PREFIX: Final = "FLOWTRIO_"

_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class Parser(argparse.ArgumentParser):
    """A parser that tells in one line what was asked for wrongly, instead of the whole usage."""

    def __init__(self, *args: Any, environment: bool = False, **options: Any) -> None:
        """Make one; with *environment*, its options may stand there too."""
        self._environment = os.environ if environment else None
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See `argparse.ArgumentParser`."""
        if self._environment is None:
            return super().parse_known_args(args, namespace or argparse.Namespace())
        self._read(self._environment)
        found, rest = super().parse_known_args(args, namespace or argparse.Namespace())
        for value in vars(found).values():
            # Where something is given it takes the place of this, which need not be read.
            if isinstance(value, _Unread):
                self.error(str(value))
        return found, rest

    def format_help(self) -> str:
        """See `argparse.ArgumentParser`."""
        if self._environment is not None:
            for action in self._actions:
                name = variable_of(action)
                if name is not None and name not in (action.help or ""):
                    action.help = f"{action.help} [{name}]"
        return super().format_help()

    def _read(self, environment: Mapping[str, str]) -> None:
        """Have what stands there as defaults."""
        for action in self._actions:
            name = variable_of(action)
            text = environment.get(name or "", "")
            if name is None or not text:
                continue
            try:
                action.default = _value(action, text)
            except (argparse.ArgumentTypeError, ValueError) as exc:
                action.default = _Unread(f"{name}: {exc}")


class _Unread(Exception):
    """Why what stands in the environment cannot be read."""


class Several(argparse.Action):
    """An option that may be given several times; its values are a tuple.

    What is given takes the place of the default, where argparse's own would add to it.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        """See `argparse.Action`."""
        super().__init__(option_strings, dest, **{"default": (), **options})

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """See `argparse.Action`."""
        before = getattr(namespace, self.dest)
        before = () if before is self.default else before
        setattr(namespace, self.dest, (*before, values))


def variable_of(action: argparse.Action) -> str | None:
    """The variable in which an option may stand; None where it is none of those."""
    names = [name for name in action.option_strings if name.startswith("--")]
    if not names or isinstance(action, argparse._HelpAction):
        return None
    return PREFIX + names[0].removeprefix("--").replace("-", "_").upper()


def _value(action: argparse.Action, text: str) -> Any:
    """What a variable's text means for an option; a `ValueError` if it cannot be read."""
    if action.nargs == 0:
        if text.lower() not in _WORDS:
            raise ValueError(f"expected 1 or 0, got {text!r}")
        return _WORDS[text.lower()]
    if isinstance(action, Several):
        return tuple(filter(None, map(str.strip, text.splitlines())))
    if action.choices is not None and text not in action.choices:
        raise ValueError(f"expected one of {', '.join(action.choices)}, got {text!r}")
    if action.type is None:
        return text
    read: Any = action.type
    return read(text)
