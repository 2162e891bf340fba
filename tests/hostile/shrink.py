"""Makes a program that breaks a law smaller, as long as it breaks it the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from .programs import Program

_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|\{.*?\}|\[.*?\]|[0-9][0-9.]*")


def kind_of(problem: str) -> str:
    """A problem without its particulars: the law, and what is wrong."""
    law, _, text = problem.partition(" ")
    text = text.split("; they are ")[0].split(", such as ")[0]
    return f"{law} {_WORDS.sub('~', text)[:90]}"


def shrink(
    program: Program, is_broken: Callable[[Program], bool], *, attempts: int = 400
) -> Program:
    """Give the smallest program found that is broken still."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(program):
            attempts -= 1
            if attempts < 0:
                return program
            if is_broken(candidate):
                program, is_smaller = candidate, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    plain = Program()
    for field in attrs.fields(Program):
        value, default = getattr(program, field.name), getattr(plain, field.name)
        if value != default and field.name != "agent":
            yield attrs.evolve(program, **{field.name: default})
    for field in ("policy", "limits", "engine"):
        for key in getattr(program, field):
            rest = {k: v for k, v in getattr(program, field).items() if k != key}
            yield attrs.evolve(program, **{field: rest})
    for field in ("reader", "clicks"):
        steps = getattr(program, field)
        for place in range(len(steps)):
            yield attrs.evolve(program, **{field: (*steps[:place], *steps[place + 1 :])})
    for agent in _less(program.agent):
        yield attrs.evolve(program, agent=agent)


def _less(node: Any) -> Iterator[Any]:
    """The same tree with one part of it gone, or put in the place of what is around it."""
    if isinstance(node, dict):
        for key in node:
            yield {k: v for k, v in node.items() if k != key}
        return
    if not isinstance(node, tuple):
        return
    if not node or isinstance(node[0], tuple):
        for place, child in enumerate(node):
            yield (*node[:place], *node[place + 1 :])
            for inner in _inside(child):
                yield (*node[:place], *inner, *node[place + 1 :])
    elif node[0] == "agent":
        yield ("body", ())
    for place, child in enumerate(node):
        for smaller in _less(child):
            yield (*node[:place], smaller, *node[place + 1 :])


def _inside(statement: Any) -> Iterator[Any]:
    """The statements of a statement, which may stand in its place."""
    for part in statement if isinstance(statement, tuple) else ():
        if isinstance(part, tuple) and part and part[0] in ("tool", "body"):
            yield part[-1]
        elif isinstance(part, tuple) and part and isinstance(part[0], tuple):
            yield part
