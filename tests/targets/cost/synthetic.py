"""Measurements of a machine that does not exist: seconds by a formula with some noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tvmpipe.targets.cost.features import base_seconds
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION

NOISE = 0.1  # standard deviation of log2 of the seconds


def matmul(rows: int, depth: int, columns: int) -> Work:
    """The work of a product of `[rows, depth]` with a constant `[depth, columns]`."""
    flops = 2.0 * rows * depth * columns
    return Work(
        flops=flops,
        input_bytes=4 * rows * depth,
        weight_bytes=4 * depth * columns,
        output_bytes=4 * rows * columns,
        operators=("matmul", "add"),
        key=f"{rows:010x}{depth:010x}{columns:012x}",
        kernel="matmul",
        spatial=(rows, columns),
        reduction=(depth,),
        arithmetic=flops,
        inner_bytes=8 * rows * columns,
    )


def seconds_of(work: Work, target: TargetDescription, threads: int) -> float:
    """What the machine takes without noise: small products are far from the roofline."""
    return base_seconds(work, target, threads) * (1.2 + 2.0 / math.sqrt(1 + work.flops / 1e6))


def measurements(target: TargetDescription, threads: int, count: int, seed: int = 0) -> list[Measurement]:
    """`count` products of random sizes from 20 models."""
    random = np.random.default_rng(seed)
    rows: dict[str, Measurement] = {}
    while len(rows) < count:
        m, k, n = (int(2 ** random.uniform(3, 10)) for _ in range(3))
        work = matmul(m, k, (n + 15) // 16 * 16)
        seconds = seconds_of(work, target, threads) * 2 ** random.normal(0, NOISE)
        rows[work.key] = Measurement(
            work=work,
            seconds=seconds,
            low_s=seconds * 0.99,
            high_s=seconds * 1.01,
            runs=12,
            cold_s=None,
            busy=False,
            schedule=SCHEDULE_VERSION,
            tvm=tvm_version(),
            when="2026-01-01T00:00:00Z",
            origin=f"model{len(rows) % 20}",
        )
    return list(rows.values())


def foreign(row: Measurement) -> Measurement:
    """The same measurement of code that another version made."""
    return replace(row, schedule="0" * 12)
