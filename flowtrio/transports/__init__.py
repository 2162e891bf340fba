"""Towards the reader: what carries events over a network."""
