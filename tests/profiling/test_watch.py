"""The loops that watch a device: they compute what they should, and their usual time is known from measurements."""

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.store.test_profile_store import row
from tvmpipe.passes.backend.lower import compile_function
from tvmpipe.profiling.measure import RemoteTimer
from tvmpipe.profiling.peak import _SWEEPS, register_tiles
from tvmpipe.profiling.timing import Patience
from tvmpipe.profiling.watch import loops_of, measure_facts, undisturbed, usual_s, watch_over
from tvmpipe.targets.description.boards import find_target


def test_register_tiles_compute_a_product() -> None:
    import tvm

    target = find_target("native")
    ceiling = register_tiles(target, 1)
    library = tvm.compile(tvm.IRModule({"main": ceiling.function}), target.tvm_target(1)).jit()
    arguments = [tvm.runtime.tensor(array) for array in ceiling.arrays]
    library["main"](*arguments)
    left, panel, result = (array.numpy() for array in arguments)
    assert np.all(result == _SWEEPS * left.shape[0])
    assert ceiling.amount == 2.0 * _SWEEPS * left.size * panel.size / left.shape[0]


def test_the_usual_time_is_that_of_quiet_moments() -> None:
    rows = [row(number, reference_s=((1.0, 3.0) if number % 3 else (1.5, 9.0))) for number in range(60)]
    assert usual_s(rows) == pytest.approx((1.0, 3.0))
    assert usual_s(rows[:10]) == ()
    assert usual_s([row(number) for number in range(60)]) == ()


def test_a_device_is_watched_over_rpc() -> None:
    """Its ceilings are of a plausible order, and a loop is as fast as the same loop."""
    from tvm import rpc

    target = find_target("native")
    timer = RemoteTimer(rpc.LocalSession())
    loops = loops_of(target, 1, compile_function)
    patience = Patience(attempts=1)
    facts = measure_facts(timer, loops, watch_over(timer, loops, [], patience), "here", "now")
    assert 1e8 < facts.peak_flops < 1e13
    assert 1e8 < facts.memory_bandwidth_bps < 1e12
    rows = [row(number, reference_s=(1e-9, 1e-9)) for number in range(30)]
    watch = watch_over(timer, loops, rows, patience)
    assert watch.time(lambda count: [1e-3] * count).busy


def test_what_was_disturbed_is_seen_once_the_usual_is_known() -> None:
    """The first rows of a device were taken before anybody knew how long the loops usually take."""
    quiet = [row(number, reference_s=(1.0, 1.0)) for number in range(30)]
    slow, reading = row(30, reference_s=(1.3, 1.0)), row(31, reference_s=(1.0, 1.6))
    marked, unwatched = row(32, busy=True, reference_s=(1.0, 1.0)), row(33)
    kept = undisturbed([slow, reading, marked, unwatched, *quiet])
    assert kept == [unwatched, *quiet]
    assert undisturbed([slow, marked]) == [slow]
