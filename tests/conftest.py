"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: what fails here fails for everybody, and nothing fails by luck.
settings.register_profile("flowtrio", derandomize=True, database=None, deadline=None)
settings.load_profile("flowtrio")
