"""What a machine really reaches: a loop of nothing but multiply-adds in registers, one of nothing but reads.

What a kernel's GFLOP/s are a share of. The nominal figures of `targets.description.target` are estimates of vendors'
manuals; clocks under vector load, shared hosts and emulators make the real ceiling another number.

A third loop is as busy as kernels are and says whether a machine is at its usual speed: a register tile of a product
with operands from the caches. Where a core's other hardware thread works for somebody else, kernels with AVX-512 were
seen to take 1.6 times as long while multiply-adds in registers, which leave the load ports and half of the front end
free, took no longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription

_ITERATIONS = 1 << 19  # a few milliseconds on a fast core: short enough to repeat, long enough to time
_REPEATS = 30
_READ_BYTES = 64 << 20
_STREAMS = 8
_SPARE_REGISTERS = 4  # for the factor, the addend and what the compiler needs
_PANEL_BYTES = 128 << 10  # larger than first-level caches
_SWEEPS = 128  # of the panel; a millisecond or so


@dataclass(frozen=True)
class Ceiling:
    """A loop that reaches one of a machine's ceilings.

    `function` is a TIR function, `arrays` what it is called with, `amount` the operations or bytes of one call.
    """

    function: Any
    arrays: tuple[NDArray[np.float32], ...]
    amount: float


def multiply_adds(target: TargetDescription, threads: int) -> Ceiling:
    """A few milliseconds of multiply-adds; each counts as two operations, whatever instructions a target needs."""
    lanes = max(target.vector_bits // 32, 1)
    accumulators = target.vector_registers - _SPARE_REGISTERS
    # Every accumulator settles near addend / (1 - factor) = 2: no denormals, no overflow.
    start = np.random.default_rng(0).uniform(1.0, 2.0, (accumulators, lanes)).astype(np.float32)
    operands = np.repeat(np.array([[0.999], [0.002]], dtype=np.float32), lanes, axis=1)
    result = np.zeros((threads, accumulators, lanes), dtype=np.float32)
    function = _kernel(threads, accumulators, lanes)
    return Ceiling(function, (start, operands, result), 2.0 * threads * accumulators * lanes * _ITERATIONS)


def memory_reads(target: TargetDescription, threads: int) -> Ceiling:
    """Sums over 64 MiB, more than the caches of most machines hold."""
    lanes = max(target.vector_bits // 32, 1)
    steps = _READ_BYTES // (threads * _STREAMS * lanes * 4)
    data = np.ones((threads, steps, _STREAMS, lanes), dtype=np.float32)
    result = np.zeros((threads, _STREAMS, lanes), dtype=np.float32)
    return Ceiling(_sums(threads, steps, lanes), (data, result), float(data.nbytes))


def register_tiles(target: TargetDescription, threads: int) -> Ceiling:
    """A register tile of a product, again and again over a panel that the second-level cache holds."""
    lanes = max(target.vector_bits // 32, 1)
    columns = 2
    rows = describe_cpu(target, threads).tile_rows(columns)
    depth = _PANEL_BYTES // (columns * lanes * 4)
    left = np.ones((depth, rows), dtype=np.float32)
    panel = np.ones((threads, depth, columns, lanes), dtype=np.float32)
    result = np.zeros((threads, rows, columns, lanes), dtype=np.float32)
    amount = 2.0 * threads * rows * columns * lanes * depth * _SWEEPS
    return Ceiling(_tiles(threads, rows, columns, lanes, depth), (left, panel, result), amount)


def measure_peak_flops(target: TargetDescription, threads: int) -> float:
    """fp32 FLOP/s that `threads` threads of this process reach with `target`'s instructions, the median of some tries.

    TVM's pool must have `threads` threads (`TVM_NUM_THREADS`, read when it starts).
    """
    import tvm

    ceiling = multiply_adds(target, threads)
    with tvm.transform.PassContext(opt_level=3):
        library = tvm.compile(tvm.IRModule({"multiply_add": ceiling.function}), target.tvm_target(threads))
    arguments = [tvm.runtime.tensor(array) for array in ceiling.arrays]
    timer = library.jit().time_evaluator("multiply_add", tvm.cpu(), number=1, repeat=_REPEATS)
    # The median, as for kernels: a shared host's clock rises for moments that no kernel could keep up with.
    return ceiling.amount / float(timer(*arguments).median)


def _sums(threads: int, steps: int, lanes: int) -> Any:
    """Each thread adds up its part of an array, in several streams of whole vectors."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def sums(data: T.handle, result: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        read = T.match_buffer(data, (threads, steps, _STREAMS, lanes), "float32")
        out = T.match_buffer(result, (threads, _STREAMS, lanes), "float32")
        for thread in T.parallel(threads):
            total = T.decl_buffer((_STREAMS, lanes), "float32", scope="local")
            for a in T.unroll(_STREAMS):
                for lane in T.vectorized(lanes):
                    total[a, lane] = T.float32(0)
            for step in T.serial(steps):
                for a in T.unroll(_STREAMS):
                    for lane in T.vectorized(lanes):
                        total[a, lane] = total[a, lane] + read[thread, step, a, lane]
            for a in T.unroll(_STREAMS):
                for lane in T.vectorized(lanes):
                    out[thread, a, lane] = total[a, lane]

    return sums


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


def _tiles(threads: int, rows: int, columns: int, lanes: int, depth: int) -> Any:
    """Sums stay in registers; each step loads `columns` vectors and broadcasts `rows` numbers."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
    def tiles(left: T.handle, panel: T.handle, result: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        a = T.match_buffer(left, (depth, rows), "float32")
        b = T.match_buffer(panel, (threads, depth, columns, lanes), "float32")
        out = T.match_buffer(result, (threads, rows, columns, lanes), "float32")
        for thread in T.parallel(threads):
            total = T.decl_buffer((rows, columns, lanes), "float32", scope="local")
            for row in T.unroll(rows):
                for column in T.unroll(columns):
                    for lane in T.vectorized(lanes):
                        total[row, column, lane] = T.float32(0)
            for _ in T.serial(_SWEEPS):
                for step in T.serial(depth):
                    for row in T.unroll(rows):
                        for column in T.unroll(columns):
                            for lane in T.vectorized(lanes):
                                total[row, column, lane] = (
                                    total[row, column, lane] + a[step, row] * b[thread, step, column, lane]
                                )
            for row in T.unroll(rows):
                for column in T.unroll(columns):
                    for lane in T.vectorized(lanes):
                        out[thread, row, column, lane] = total[row, column, lane]

    return tiles
