"""Timing on devices that do not exist: tight where it is quiet, marked where it is busy."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from tvmpipe.profiling.timing import Patience, Reference, Samples, Watch

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

    def watch(self, patience: Patience = PATIENCE, known_s: float | None = None, slower: float = 1.15) -> Watch:
        return Watch([Reference(self.loop(2e-3), slower, known_s)], patience, sleep=self.sleep)

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
    timing = machine.watch(slower=2.0).time(machine.loop(1e-4))
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
    assert machine.watch(known_s=2e-3).time(machine.loop(1e-4)).busy
    calm = Machine(lambda _: 1.05)
    assert not calm.watch(known_s=2e-3).time(calm.loop(1e-4)).busy


def test_batches_between_two_speeds_are_told_apart() -> None:
    """A neighbour that comes and goes every dozen calls costs batches, not the measurement."""
    machine = Machine(lambda call: 1.6 if call >= 6 and call // 12 % 2 else 1.0)
    watch = machine.watch(Patience(limit_s=60, tight=1e-9, attempts=8))
    for _ in range(10):
        timing = watch.time(machine.loop(1e-4))
        assert not timing.busy
        assert timing.high_s < 1.1e-4
        assert timing.reference_s[0] == pytest.approx(2e-3, rel=0.02)


def test_any_of_several_loops_tells() -> None:
    machine, memory = Machine(lambda _: 1.0), Machine(lambda call: 2.0 if call >= 6 else 1.0)
    watch = Watch([Reference(machine.loop(1e-3)), Reference(memory.loop(3e-3), 1.3)], PATIENCE, sleep=machine.sleep)
    timing = watch.time(machine.loop(1e-4))
    assert timing.busy
    assert timing.reference_s == pytest.approx((1e-3, 6e-3), rel=0.02)


def test_cold_calls_are_timed_beside_warm_ones() -> None:
    machine = Machine(lambda _: 1.0)
    timing = machine.watch().time(machine.loop(1e-4), machine.loop(3e-4))
    assert timing.cold_s == pytest.approx(3e-4, rel=0.02)
    assert not timing.busy
    late = Machine(lambda call: 1.5 if call >= 11 else 1.0)
    assert late.watch().time(late.loop(1e-4), late.loop(3e-4)).busy


def test_samples_that_scatter_mark_a_device_as_busy() -> None:
    """A load that comes and goes may miss the reference loop."""
    random = np.random.default_rng(1)
    machine = Machine(lambda _: 1.0)

    def scattered(count: int) -> list[float]:
        return [1e-4 * float(random.choice([1.0, 2.0])) for _ in range(count)]

    assert machine.watch().time(scattered).busy
