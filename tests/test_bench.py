"""`tvmpipe bench`: what it reports and what it refuses. No figure is compared with a time: hosts differ."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.test_cli import sentence, tvmpipe
from tvmpipe.bench import _Worker, bench_model
from tvmpipe.bench_worker import TvmJob
from tvmpipe.commands.bench import run_bench
from tvmpipe.errors import ClusterError, DeviceError, ModelError


def test_json(branchy_path: Path) -> None:
    """A model with integer inputs, a boolean output and several outputs."""
    facts = json.loads(tvmpipe("bench", branchy_path, "--runs", 3, "--seconds", 0, "--json")[0])
    assert facts["relative_error"] < 1e-4
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
    assert result.relative_error is None
    assert sum(one.calls for one in result.primitives) >= 6
    flops = sum(one.calls * one.flops for one in result.primitives)
    assert flops >= 6 * 2 * 4 * 256 * 256
    assert result.gflops == pytest.approx(flops / result.tvmpipe_s / 1e9)


def test_table(chain_path: Path) -> None:
    out, _ = tvmpipe("bench", chain_path, "--runs", 2, "--seconds", 0)
    assert "of peak" in out
    assert "ONNX Runtime:" in out
    assert "relative error" in out
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
    from tvmpipe.targets.target import find_target

    foreign = "pi4" if find_target("native").architecture == "x86_64" else "x86-64-v3"
    assert "cannot run it" in sentence(tvmpipe("bench", chain_path, "--device", foreign, code=1)[1])


def test_wrong_results_are_an_error(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmpipe.reference.relative_error", lambda *_: 0.5)
    with pytest.raises(DeviceError, match=r"differ from ONNX Runtime's by 5.00e-01"):
        run_bench(chain_path, runs=1)


def test_failures_of_a_process_are_named(tmp_path: Path) -> None:
    with _Worker("stage", {}) as worker:
        with pytest.raises(DeviceError, match="process of stage failed"):
            worker.ask("load", TvmJob(tmp_path / "none.so", (), (), ()))
        worker._process.kill()
        with pytest.raises(DeviceError, match="process of stage ended with SIGKILL"):
            worker.ask("infer")
    with _Worker("x86-64-v9", {}) as worker:
        worker._process.send_signal(signal.SIGILL)
        with pytest.raises(ClusterError, match="has not all instructions of x86-64-v9"):
            worker.ask("infer")
