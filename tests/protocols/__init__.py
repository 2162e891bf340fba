"""Adapters to other people's protocols: what they say of a run, and how they are talked to."""
