"""The soak is short here; what it would notice is planted."""

from __future__ import annotations

import attrs
import trio

from tests.soak import AT_ONCE, Sample, growth, soak

FLAT = [Sample(mib=50.0, tasks=6, threads=12, descriptors=9)] * 30


async def test_a_short_soak_counts_its_runs() -> None:
    with trio.fail_after(120):
        runs, samples = await soak(0.2)

    assert runs == AT_ONCE * len(samples)
    assert samples[0].tasks == samples[-1].tasks


def test_what_grows_is_named() -> None:
    assert growth(FLAT) == []
    for name, step, told in (
        ("mib", 1.0, "memory"),
        ("tasks", 1, "tasks"),
        ("descriptors", 1, "descriptors"),
        ("threads", 2, "threads"),
    ):
        leaking = [
            attrs.evolve(each, **{name: getattr(each, name) + step * place})
            for place, each in enumerate(FLAT)
        ]
        assert growth(leaking) == [told]
