"""A reader that stands aside."""

from __future__ import annotations

import time

from revbench.probes.sampler import Sampler


def test_the_sampler_reads_until_it_is_left() -> None:
    values = iter(range(10_000))
    with Sampler(lambda: next(values), 0.001) as sampler:
        while len(sampler.samples) < 5:
            time.sleep(0.001)
    count = len(sampler.samples)
    assert [value for _, value in sampler.samples] == list(range(count))
    seconds = [at for at, _ in sampler.samples]
    assert seconds == sorted(seconds)
    time.sleep(0.01)
    assert len(sampler.samples) == count
