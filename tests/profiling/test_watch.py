"""The loops that watch a device compute what they should, and notice what is slower than usual."""

from __future__ import annotations

import numpy as np

from tests.targets.store.test_profile_store import row
from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.profiling.measure import RemoteTimer
from tvmpipe.profiling.peak import _SWEEPS, register_tiles
from tvmpipe.profiling.timing import Patience
from tvmpipe.profiling.watch import loops_of, measure_facts, watch_over
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
