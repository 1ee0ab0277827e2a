"""`tvmpipe bench`: what it reports and what it refuses. No figure is compared with a time: hosts differ."""

from __future__ import annotations

import json
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from tests.fallback_models import detector, images
from tests.models import chain, chaotic, save
from tests.test_cli import sentence, tvmpipe
from tvmpipe.bench.compare import _Worker, bench_model
from tvmpipe.bench.worker import BundleJob, StageJob
from tvmpipe.build import build
from tvmpipe.cli import cli
from tvmpipe.commands.bench import render
from tvmpipe.errors import ClusterError, DeviceError, ModelError
from tvmpipe.targets.description.cluster import parse_cluster


def test_json(branchy_path: Path) -> None:
    """A model with integer inputs, a boolean output and several outputs."""
    facts = json.loads(tvmpipe("bench", branchy_path, "--runs", 3, "--seconds", 0, "--json")[0])
    assert facts["comparison"]["verdict"] == "equal"
    assert facts["comparison"]["difference"] <= facts["comparison"]["allowed"]
    assert facts["tvmpipe_s"] > 0
    assert facts["onnxruntime_s"] > 0
    assert facts["ratio_quartiles"][0] <= facts["ratio"] <= facts["ratio_quartiles"][1]
    assert facts["peak_gflops"] > 0.1
    assert facts["compile_s"] > 0
    primitives = facts["primitives"]
    assert [one["total_s"] for one in primitives] == sorted((one["total_s"] for one in primitives), reverse=True)
    for one in primitives:
        assert one["total_s"] == pytest.approx(one["calls"] * one["call_s"])
        assert one["gflops"] == pytest.approx(one["flops"] / one["call_s"] / 1e9)
        assert one["peak_share"] == pytest.approx(one["gflops"] / facts["peak_gflops"])
    (stem,) = (one for one in primitives if [1, 3, 16, 16] in one["shapes"] and "conv2d" in one["operators"])
    assert stem["calls"] == 1
    assert stem["flops"] >= 2 * 8 * 14 * 14 * 3 * 3 * 3


def test_one_side_only_and_repeated_calls(chain_path: Path) -> None:
    """Equal layers are one function that is called several times."""
    result = bench_model(chain_path, runs=2, against="none")
    assert result.ratio is None
    assert result.onnxruntime_s is None
    assert result.comparison is None
    assert sum(one.calls for one in result.primitives) >= 6
    flops = sum(one.calls * one.flops for one in result.primitives)
    assert flops >= 6 * 2 * 4 * 256 * 256
    assert result.gflops == pytest.approx(flops / result.tvmpipe_s / 1e9)


def test_table(chain_path: Path) -> None:
    out, _ = tvmpipe("bench", chain_path, "--runs", 2, "--seconds", 0)
    assert "of peak" in out
    assert "ONNX Runtime:" in out
    assert "results equal the reference's: largest difference" in out
    assert "of 2 pairs" in out


def test_many_runs_of_what_is_quick(chain_path: Path) -> None:
    """A short look at a shared host says little."""
    assert bench_model(chain_path, runs=1, seconds=0.5, against="none").runs > 1


def test_mistakes(tmp_path: Path, chain_path: Path) -> None:
    _, err = tvmpipe("bench", chain_path, "--device", "abacus", code=1)
    assert "'abacus' is not known; allowed: native" in sentence(err)
    _, err = tvmpipe("bench", tmp_path / "none.onnx", code=1)
    assert "none.onnx does not exist" in sentence(err)
    assert "Usage" in tvmpipe("bench", chain_path, "--against", "itself", code=2)[1]
    with pytest.raises(ModelError):
        bench_model(tmp_path / "none.onnx")


def test_a_target_of_another_architecture(chain_path: Path) -> None:
    from tvmpipe.targets.description.boards import find_target

    foreign = "pi4" if find_target("native").architecture == "x86_64" else "x86-64-v3"
    assert "cannot run it" in sentence(tvmpipe("bench", chain_path, "--device", foreign, code=1)[1])


def test_a_model_that_amplifies_roundings_is_right(tmp_path: Path) -> None:
    """It differs by more than 1e-4 of its largest value, as ONNX Runtime does from itself."""
    found = bench_model(save(chaotic(), tmp_path), runs=1).comparison
    assert found is not None
    assert found.equal, found.sentence
    assert found.allowed > 1e-4 * found.largest + 1e-6
    assert "noise floor" in found.sentence


def test_half_precision(tmp_path: Path) -> None:
    """An attention mask in float16 inside a model whose inputs and outputs are float32."""
    half = TensorProto.FLOAT16
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=half),
        helper.make_node("Cast", ["mask"], ["m"], to=half),
        helper.make_node("Mul", ["m", "big"], ["off"]),
        helper.make_node("Add", ["h", "off"], ["a"]),
        helper.make_node("Softmax", ["a"], ["s"], axis=-1),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, [1, 1, 1, 8]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.array(-65504, np.float16), "big")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = bench_model(save(model, tmp_path), runs=1).comparison
    assert found is not None
    assert found.equal, found.sentence
    assert found.allowed == pytest.approx(1e-2 * found.largest)


def test_wrong_results_are_reported(tmp_path: Path) -> None:
    """The times are what they are. Here the file becomes another model while the first one is compiled."""
    path = save(chain(2, 32), tmp_path)

    def swap(_name: str, number: int, _total: int, _seconds: float) -> None:
        if number:
            save(chain(2, 32, seed=1), tmp_path)

    result = bench_model(path, runs=1, progress=swap)
    assert result.comparison is not None
    assert result.comparison.verdict == "different"
    assert result.ratio is not None
    lines = Console(file=StringIO(), width=200, record=True)
    lines.print(render(result))
    assert "results differ from the reference's: largest difference" in lines.export_text()


def bench(*arguments: object, code: int = 0) -> tuple[Any, str]:
    """The command with `--json` in this process: (facts, stderr)."""
    options = ("--runs", 1, "--seconds", 0, "--json")
    result = CliRunner().invoke(cli, ["bench", *map(str, (*arguments, *options))])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout), result.stderr


def test_results_that_prove_nothing_are_a_warning(tmp_path: Path) -> None:
    model = chain(1, 8)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 8), np.float32), "w0"))
    facts, err = bench(save(model, tmp_path))
    assert facts["comparison"]["verdict"] == "proves nothing"
    assert facts["ratio"] > 0
    said = [line for line in err.splitlines() if line.startswith("tvmpipe: warning:")]
    assert said == ["tvmpipe: warning: the comparison proves nothing: output 'y' is zero everywhere"]


def test_inputs_from_a_file(tmp_path: Path) -> None:
    """Zeros, of which this model makes zeros: the inputs are seen to be the given ones."""
    model, file = save(chain(1, 8), tmp_path), tmp_path / "in.npz"
    assert bench(model)[0]["comparison"]["verdict"] == "equal"
    np.savez(file, x=np.zeros((4, 8), np.float32))
    assert bench(model, "--input", file)[0]["comparison"]["verdict"] == "proves nothing"
    np.save(tmp_path / "x.npy", np.ones((4, 8), np.float32))
    assert bench(model, "-i", tmp_path / "x.npy")[0]["comparison"]["verdict"] == "equal"

    def fails(message: str, path: Path = file) -> None:
        assert message in bench(model, "--input", path, code=1)[0]["message"]

    fails("none.npz does not exist", tmp_path / "none.npz")
    np.savez(file, x=np.zeros((4, 7), np.float32))
    fails("in.npz: input 'x' has shape [4, 7]; the model takes [4, 8]")
    np.savez(file, z=np.zeros((4, 8), np.float32))
    fails("in.npz: input 'z' is not one of the model's; allowed: x")


def test_what_onnx_runtime_runs_is_timed_as_a_stage(tmp_path: Path) -> None:
    model, file = save(detector(), tmp_path), tmp_path / "image.npz"
    np.savez(file, image=images(3)[2]["image"])
    facts, _ = bench(model, "--input", file)
    assert facts["comparison"]["verdict"] == "equal"
    (left,) = (one for one in facts["primitives"] if one["operators"][0] == "NonMaxSuppression")
    assert left["name"] == "onnxruntime_NonMaxSuppression + onnxruntime_NonZero"
    assert left["operators"] == ["NonMaxSuppression", "Gather", "Squeeze", "Gather", "NonZero"]
    assert left["calls"] == 1
    assert left["flops"] > 64 * 4
    assert 0 < left["call_s"] < 1
    found = left["shapes"][-2]
    assert found[1] == 4
    assert 0 < found[0] < 64
    assert any("conv2d" in one["operators"] and one["flops"] > 0 for one in facts["primitives"])
    refused = bench(model, "--no-fallback", code=1)[0]["message"]
    assert refused.startswith("node 'nms' is a NonMaxSuppression")


def test_failures_of_a_process_are_named(tmp_path: Path) -> None:
    bundle = build(chain(1, 8), parse_cluster('[[device]]\nname = "one"\nthreads = 1\n'))
    (stage,) = bundle.manifest.plan.stages
    with _Worker("stage", {}) as worker:
        with pytest.raises(DeviceError, match="process of stage failed"):
            worker.ask("load", BundleJob((StageJob(stage, tmp_path / "none.so", ()),), 1, {}, ()))
        worker._process.kill()
        with pytest.raises(DeviceError, match="process of stage ended with SIGKILL"):
            worker.ask("infer")
    with _Worker("x86-64-v9", {}) as worker:
        worker._process.send_signal(signal.SIGILL)
        with pytest.raises(ClusterError, match="has not all instructions of x86-64-v9"):
            worker.ask("infer")
