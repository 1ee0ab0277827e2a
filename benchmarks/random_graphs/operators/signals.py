"""Fourier transforms, windows and filters."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from benchmarks.random_graphs.pool import Pool
from benchmarks.random_graphs.proposal import Proposal, makes, node


@makes("DFT")
def fourier(pool: Pool, operator: str) -> Proposal:
    parts = pool.integer(1, 2)
    shape = [2, pool.integer(2, 9), pool.integer(2, 6), parts]
    axis = pool.one_of(1, 2, -2, -3)
    onesided = int(parts == 1 and pool.flip())
    length = pool.one_of(None, np.array(pool.integer(2, 9)))
    attributes = {"onesided": onesided, "inverse": int(not onesided and pool.flip())}
    return node(operator, [pool.fresh(shape, np.float32, tame=True), length, np.array(axis)], attributes)


@makes("STFT")
def short_time(pool: Pool, operator: str) -> Proposal:
    length, frame, step = pool.integer(12, 24), pool.integer(4, 9), pool.integer(1, 4)
    window = pool.one_of(None, pool.constant([frame], tame=True))
    inputs = [pool.fresh([2, length, 1], np.float32, tame=True), np.array(step), window, np.array(frame)]
    return node(operator, inputs, {"onesided": pool.integer(0, 1)})


@makes("HannWindow", "HammingWindow", "BlackmanWindow")
def windows(pool: Pool, operator: str) -> Proposal:
    kind = pool.one_of(TensorProto.FLOAT, TensorProto.DOUBLE)
    attributes = {"periodic": pool.integer(0, 1), "output_datatype": int(kind)}
    return node(operator, [np.array(pool.integer(2, 9))], attributes)


@makes("MelWeightMatrix")
def mel(pool: Pool, operator: str) -> Proposal:
    numbers = [np.array(n) for n in (pool.integer(2, 5), pool.one_of(16, 32), 8192)]
    return node(operator, [*numbers, np.array(0.0, np.float32), np.array(4096.0, np.float32)])
