"""Bookkeeping of samples: what can run when, and what is kept."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.bundle import Bundle
from tvmpipe.runtime.router import Finished, Router, Task


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_order_of_completions_finishes_each_sample_once(branchy_bundle: Bundle, seed: int) -> None:
    manifest = branchy_bundle.manifest
    router = Router(manifest)
    choose = random.Random(seed)
    inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in manifest.model.inputs}
    running: list[Task] = []
    for sample in range(4):
        running += router.start(sample, inputs)
    seen, finished = set(), []
    while running:
        task = running.pop(choose.randrange(len(running)))
        assert (task.sample, task.stage.name) not in seen, "a stage must run once per sample"
        seen.add((task.sample, task.stage.name))
        assert [a.shape for a in task.inputs] == [t.spec.shape for t in task.stage.inputs]
        outcome = router.complete(task, [np.zeros(t.spec.shape, t.spec.dtype) for t in task.stage.outputs])
        if isinstance(outcome, Finished):
            finished.append(outcome.sample)
            assert set(outcome.outputs) == {"scores", "mask"}
        else:
            running += outcome
    assert sorted(finished) == [0, 1, 2, 3]
    assert len(seen) == 4 * len(manifest.stages)
    assert router.in_flight == []


def test_dropped_sample_is_forgotten(chain_bundle: Bundle) -> None:
    router = Router(chain_bundle.manifest)
    (task,) = router.start(0, {"x": np.zeros((4, 256), np.float32)})
    router.drop(0)
    assert router.complete(task, [np.zeros((4, 256), np.float32)]) == []
