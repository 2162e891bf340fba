"""Hostile programs over the public verbs, and a judge that shares nothing with the runtime.

`programs` draws what somebody does, `world` does it and writes down what it saw, `judge` holds the
one against the other by the laws of `docs/design.md`.
"""
