"""A host without sockets, behind either library."""

from __future__ import annotations

from types import ModuleType

import httpx
import httpx2
import pytest
import trio

from flowtrio._core._limits import ModelLimits
from flowtrio.clients._host import ModelHost
from tests.support.exchanges import KEY, NOW, Make, Setting
from tests.support.fake_host import Answer, FakeHost


@pytest.fixture(params=[httpx, httpx2], ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def make(library: ModuleType) -> Make:
    def make(*answers: Answer, limits: ModelLimits | None = None, jitter: float = 1) -> Setting:
        fake = FakeHost(library, answers)
        model = ModelHost.of(
            "http://models.example/v1",
            headers={"authorization": f"Bearer {KEY}"},
            key=KEY,
            http_client=fake.http_client(),
            limits=limits,
        )
        model.jitter = lambda: jitter
        begun = trio.current_time()
        model.wall_clock = lambda: NOW + trio.current_time() - begun
        return Setting(fake, model)

    return make
