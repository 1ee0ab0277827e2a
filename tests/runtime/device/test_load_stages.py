"""Stages of several buckets in one process: what they keep in memory, and when they give it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime import manifests
from tvmpipe.bundle import Bundle
from tvmpipe.manifest import StageEntry
from tvmpipe.runtime.device import load_stages
from tvmpipe.runtime.device.load_stages import LoadedStages
from tvmpipe.runtime.device.runners import load_stage
from tvmpipe.runtime.device.weights import read_weights


class Noted:
    """A runner that notes when it is released."""

    def __init__(self, name: str, released: list[str]) -> None:
        self.name, self.released = name, released

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return list(inputs)

    def release(self) -> None:
        self.released.append(self.name)


@pytest.mark.parametrize(("memory_bytes", "expected"), [(100, []), (99, ["s0", "s1", "b1-s0"])])
def test_activations_of_a_bucket_that_does_not_run_are_given_back_where_there_is_no_room_for_all(
    memory_bytes: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []

    def load(stage: StageEntry, library: Path, weights: Mapping[str, Any], threads: int | None) -> Noted:
        return Noted(stage.name, released)

    class Empty:
        """A store whose files are all there."""

        def hold(self, one: object) -> Path:
            return Path("none")

        verify = hold

    monkeypatch.setattr(load_stages, "load_stage", load)
    monkeypatch.setattr(load_stages, "read_weights", lambda *_: ())
    monkeypatch.setattr(load_stages, "stored_bytes", lambda *_: 0)
    stages = [
        manifests.stage(name, "a", [place], [place + 1]).model_copy(update={"bucket": bucket, "activation_bytes": size})
        for place, (name, bucket, size) in enumerate((("s0", 0, 30), ("s1", 0, 50), ("b1-s0", 1, 20)))
    ]
    loaded = LoadedStages(stages, Empty(), memory_bytes, 1)  # type: ignore[arg-type]
    for batch, name in enumerate(("s0", "s1", "s0", "b1-s0", "b1-s0", "s1")):
        loaded.run(name, batch, [])
    assert released == expected


def test_a_stage_that_was_released_runs_again_and_what_it_gave_before_stays(chain_bundle: Bundle) -> None:
    stage = chain_bundle.manifest.plan.stages[0]
    weights = read_weights([chain_bundle.path_of(file) for file in stage.weight_files], stage.weight_names)
    runner = load_stage(
        stage, chain_bundle.path_of(stage.library), dict(zip(stage.weight_names, weights, strict=True)), 1
    )
    inputs = [np.full(tensor.spec.shape, 0.5, tensor.spec.dtype) for tensor in stage.inputs]
    first = runner.run(inputs)
    kept = [array.copy() for array in first]
    runner.release()
    others = runner.run([array * 2 for array in inputs])
    again = runner.run(inputs)
    for before, copy, now, other in zip(first, kept, again, others, strict=True):
        np.testing.assert_array_equal(before, copy)
        np.testing.assert_array_equal(now, copy)
        assert not np.array_equal(other, copy)
