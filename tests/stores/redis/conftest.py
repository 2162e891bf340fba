"""One redis-server for all tests of a file; each store there has keys of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A server that keeps nothing."""
    with redis_server() as server:
        yield server
