"""The arithmetic a machine really reaches: a loop of nothing but multiply-adds in registers.

What a kernel's GFLOP/s are a share of. The nominal figures of `targets.target` are estimates of vendors' manuals;
clocks under vector load, shared hosts and emulators make the real ceiling another number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.targets.target import TargetDescription

_ITERATIONS = 1 << 19  # a few milliseconds on a fast core: short enough to repeat, long enough to time
_REPEATS = 30
_SPARE_REGISTERS = 4  # for the factor, the addend and what the compiler needs


def measure_peak_flops(target: TargetDescription, threads: int) -> float:
    """fp32 FLOP/s that `threads` threads of this process reach with `target`'s instructions, the median of some tries.

    A multiply-add counts as two operations, also on a target that needs two instructions for it. TVM's pool must
    have `threads` threads (`TVM_NUM_THREADS`, read when it starts).
    """
    import tvm

    lanes = max(target.vector_bits // 32, 1)
    accumulators = target.vector_registers - _SPARE_REGISTERS
    with tvm.transform.PassContext(opt_level=3):
        library = tvm.compile(
            tvm.IRModule({"multiply_add": _kernel(threads, accumulators, lanes)}), target.tvm_target(threads)
        )
    # Every accumulator settles near addend / (1 - factor) = 2: no denormals, no overflow.
    start = np.random.default_rng(0).uniform(1.0, 2.0, (accumulators, lanes)).astype(np.float32)
    operands = np.repeat(np.array([[0.999], [0.002]], dtype=np.float32), lanes, axis=1)
    result = np.zeros((threads, accumulators, lanes), dtype=np.float32)
    arguments = [tvm.runtime.tensor(array) for array in (start, operands, result)]
    timer = library.jit().time_evaluator("multiply_add", tvm.cpu(), number=1, repeat=_REPEATS)
    flops = 2.0 * threads * accumulators * lanes * _ITERATIONS
    # The median, as for kernels: a shared host's clock rises for moments that no kernel could keep up with.
    return flops / float(timer(*arguments).median)


def _kernel(threads: int, accumulators: int, lanes: int) -> Any:
    """`accumulators` independent chains of multiply-adds a thread: enough to hide the latency of the unit.

    Each starts from a value of its own that is read from memory; the compiler would otherwise compute one chain.
    """
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def multiply_add(start: T.handle, operands: T.handle, result: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        first = T.match_buffer(start, (accumulators, lanes), "float32")
        with_ = T.match_buffer(operands, (2, lanes), "float32")
        out = T.match_buffer(result, (threads, accumulators, lanes), "float32")
        for thread in T.parallel(threads):
            chain = T.decl_buffer((accumulators, lanes), "float32", scope="local")
            for a in T.unroll(accumulators):
                for lane in T.vectorized(lanes):
                    chain[a, lane] = first[a, lane]
            for _ in T.serial(_ITERATIONS):
                for a in T.unroll(accumulators):
                    for lane in T.vectorized(lanes):
                        chain[a, lane] = chain[a, lane] * with_[0, lane] + with_[1, lane]
            for a in T.unroll(accumulators):
                for lane in T.vectorized(lanes):
                    out[thread, a, lane] = chain[a, lane]

    return multiply_add
