"""A code generator is one file on the host and one on the device, each named in one list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

import tvmpipe
from tests.passes.compiled import model_of, normal
from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.backend.codegen import CODE_GENERATORS
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.device.runners import RUNNERS, RunnerModule
from tvmpipe.runtime.emulation.inprocess import run_in_process

HERE = "tests.passes.backend.numpy_generator"
CLUSTER = """
[[target]]
name = "own"
like = "x86-64-v2"
codegen = "numpy"
[[device]]
name = "alpha"
target = "own"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(CLUSTER)
    return path


def model(second: str) -> ModelProto:
    nodes = [helper.make_node("Mul", ["x", "w"], ["z"]), helper.make_node(second, ["z"], ["y"])]
    return model_of(nodes, {"x": [3, 7]}, {"w": np.linspace(-2, 2, 21, dtype=np.float32).reshape(3, 7)})


def test_stages_are_made_and_run_by_the_code_generator_of_their_target(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CODE_GENERATORS, "numpy", HERE)
    monkeypatch.setitem(RUNNERS, "numpy", RunnerModule(HERE, "numpy"))
    bundle = tvmpipe.build(model("Relu"), cluster)
    (stage,) = bundle.manifest.plan.stages
    assert (stage.codegen, stage.library.path) == ("numpy", "stages/s0.py")
    sample = {"x": normal(0, 3, 7)}
    with run_in_process(bundle) as pipe:
        assert Reference(model("Relu").SerializeToString()).compare(pipe.run(sample), sample).equal


def test_what_it_cannot_compile_is_one_sentence(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODE_GENERATORS, "numpy", HERE)
    with pytest.raises(UnsupportedModelError, match=r"stage s0 .*for own: .* is not multiply and relu"):
        tvmpipe.build(model("Sigmoid"), cluster)


def test_a_code_generator_that_there_is_not(cluster: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="there is no code generator 'numpy'; known are llvm"):
        tvmpipe.build(model("Relu"), cluster)
