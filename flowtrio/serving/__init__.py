"""Runs for clients over a network: what may be asked, and what carries it."""
