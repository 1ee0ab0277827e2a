"""Timing on devices that do not exist: tight where it is quiet, marked where it is busy."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from tvmpipe.targets.timing import Patience, Samples, Watch, median_interval

PATIENCE = Patience(limit_s=60)


class Machine:
    """A device on which everything takes `load(n)` times as long in the n-th call of any of its loops."""

    def __init__(self, load: Callable[[int], float], noise: float = 0.005) -> None:
        self.calls = itertools.count()
        self.load, self.noise = load, noise
        self.random = np.random.default_rng(0)
        self.slept = 0.0

    def loop(self, seconds: float) -> Samples:
        def samples(count: int) -> list[float]:
            slow = self.load(next(self.calls))
            return [seconds * slow * (1 + self.noise * abs(self.random.standard_normal())) for _ in range(count)]

        return samples

    def watch(self) -> Watch:
        return Watch(self.loop(2e-3), PATIENCE, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_a_quiet_device_is_timed_once_and_well() -> None:
    machine = Machine(lambda _: 1.0)
    timing = machine.watch().time(machine.loop(1e-4))
    assert not timing.busy
    assert timing.seconds == pytest.approx(1e-4, rel=0.02)
    assert timing.low_s <= timing.seconds <= timing.high_s
    assert timing.runs == PATIENCE.batch
    assert machine.slept == 0


def test_noise_takes_more_samples() -> None:
    machine = Machine(lambda _: 1.0, noise=0.05)
    patient = Patience(limit_s=60, slower=2.0)
    timing = Watch(machine.loop(2e-3), patient, sleep=machine.sleep).time(machine.loop(1e-4))
    assert timing.runs > PATIENCE.batch


def test_a_load_that_passes_is_waited_for() -> None:
    machine = Machine(lambda call: 1.8 if 6 <= call < 10 else 1.0)
    timing = machine.watch().time(machine.loop(1e-4))
    assert not timing.busy
    assert timing.seconds == pytest.approx(1e-4, rel=0.02)
    assert machine.slept > 0


def test_a_load_that_stays_is_marked() -> None:
    machine = Machine(lambda call: 1.5 if call >= 6 else 1.0)
    assert machine.watch().time(machine.loop(1e-4)).busy


def test_a_load_that_was_there_before_is_known_from_the_last_time() -> None:
    machine = Machine(lambda _: 1.5)
    watch = Watch(machine.loop(2e-3), PATIENCE, known_s=2e-3, sleep=machine.sleep)
    assert watch.time(machine.loop(1e-4)).busy
    calm = Machine(lambda _: 1.05)
    assert not Watch(calm.loop(2e-3), PATIENCE, known_s=2e-3, sleep=calm.sleep).time(calm.loop(1e-4)).busy


def test_samples_that_scatter_mark_a_device_as_busy() -> None:
    """A load that comes and goes may miss the reference loop."""
    random = np.random.default_rng(1)
    machine = Machine(lambda _: 1.0)

    def scattered(count: int) -> list[float]:
        return [1e-4 * float(random.choice([1.0, 2.0])) for _ in range(count)]

    assert machine.watch().time(scattered).busy


def test_the_interval_of_a_median_holds_it() -> None:
    random = np.random.default_rng(2)
    for count in (6, 12, 36):
        inside = 0
        for _ in range(400):
            low, high = median_interval(list(random.exponential(1.0, count)))
            inside += low <= np.log(2) <= high
        assert inside / 400 > 0.92, count
