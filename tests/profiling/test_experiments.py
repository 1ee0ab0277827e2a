"""Experiments: valid models, the same for a seed, of every kind, with primitives worth measuring."""

from __future__ import annotations

from itertools import islice

import onnx

from tvmpipe.passes.workloads import distinct, workloads_of
from tvmpipe.profiling.experiments import experiments
from tvmpipe.targets.cost.features import family


def test_they_are_valid_and_the_same_again() -> None:
    first = list(islice(experiments(0), 30))
    again = list(islice(experiments(0), 30))
    assert len({one.name for one in first}) == 30
    for one, other in zip(first, again, strict=True):
        onnx.checker.check_model(one.model, full_check=True)
        assert one.model.SerializeToString(deterministic=True) == other.model.SerializeToString(deterministic=True)


def test_another_seed_draws_other_shapes() -> None:
    mine, other = (next(experiments(seed)) for seed in (0, 1))
    assert mine.name == other.name
    assert mine.model.SerializeToString() != other.model.SerializeToString()


def test_the_first_of_each_kind_have_every_family() -> None:
    workloads = distinct(
        [workload for one in islice(experiments(0), 10) for workload in workloads_of(one.model, one.name)]
    )
    families = {family(workload.work) for workload in workloads}
    assert {"attention", "conv2d", "depthwise", "matmul", "pool", "rows", "winograd", "moves"} <= families
    assert len({workload.work.key for workload in workloads}) == len(workloads) > 40
