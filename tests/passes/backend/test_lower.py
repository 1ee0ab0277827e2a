"""Libraries for other machines, and primitives that no rule schedules well."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tvmpipe
from tests.passes.compiled import model_of, normal
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError
from tvmpipe.passes import driver
from tvmpipe.passes.backend import lower
from tvmpipe.passes.backend.codegen import StageCode, llvm
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.device.runners.llvm import LlvmRunner
from tvmpipe.runtime.device.weights import read_weights
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.description.cluster import load_cluster, parse_cluster

ELF_MACHINES = {"pi4": 0xB7, "pi5": 0xB7, "jetson-orin": 0xB7, "x86-64-v2": 0x3E}  # e_machine in the ELF header


@pytest.mark.parametrize("target", ELF_MACHINES)
def test_stages_are_linked_for_their_target(branchy_path: Path, target: str) -> None:
    cluster = parse_cluster(f'[[device]]\nname = "board"\ntarget = "{target}"\n')
    bundle = tvmpipe.build(branchy_path, cluster)
    (stage,) = bundle.manifest.plan.stages
    header = bundle.path_of(stage.library).read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert struct.unpack("<H", header[18:20])[0] == ELF_MACHINES[target]


def test_a_device_of_another_architecture_is_refused(branchy_path: Path, agents: LocalCluster) -> None:
    from tvmpipe.targets.description.boards import find_target

    here = find_target("native").architecture
    target = "pi4" if here == "x86_64" else "x86-64-v2"
    bundle = tvmpipe.build(branchy_path, parse_cluster(f'[[device]]\nname = "alpha"\ntarget = "{target}"\n'))
    with pytest.raises(DeviceError, match=f"device alpha is a {here} machine, its stages were compiled for"):
        tvmpipe.connect(bundle, agents.tracker, connect_timeout_s=20)


def test_a_function_that_is_one_opaque_block(cluster_path: Path) -> None:
    """A cumulative sum has no loops for a schedule to see; it has a cost, and runs."""
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])]
    model = model_of(nodes, {"x": [3, 7]}, {"axis": np.array(1)})
    sample = {"x": normal(0, 3, 7)}
    with run_in_process(tvmpipe.build(model, cluster_path)) as pipe:
        assert Reference(model.SerializeToString()).compare(pipe.run(sample), sample).equal


Spread = Callable[[Path, list[str]], Path]
SPREAD = ["alpha", "alpha", "beta", "gamma"]


def test_many_functions_are_compiled_in_other_processes_to_the_same_code(
    branchy_path: Path, cluster_path: Path, branchy_bundle: Bundle, spread_plan: Spread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lower, "_FEW", 0)
    monkeypatch.setattr(llvm, "compile_stage", None)  # in this process
    again = tvmpipe.build(branchy_path, cluster_path, plan=spread_plan(branchy_path, SPREAD))
    assert [file.sha256 for file in again.manifest.files] == [file.sha256 for file in branchy_bundle.manifest.files]


def test_all_stages_that_cannot_be_compiled_are_told(
    branchy_path: Path, cluster_path: Path, spread_plan: Spread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_but_the_second(module: object, *_: object) -> object:
        made.append(module)
        if len(made) == 2:
            return StageCode(b"", 0)
        raise ValueError("no code")

    made: list[object] = []
    monkeypatch.setattr(llvm, "compile_stage", all_but_the_second)
    planned = driver.plan(
        driver.front(branchy_path), load_cluster(cluster_path), BuildOptions(plan=spread_plan(branchy_path, SPREAD))
    )
    with pytest.raises(lower.NotCompiledError, match=r"^TVM cannot compile stage s0 .*: no code$") as caught:
        lower.lower(driver._cut(planned, planned.plan).all_stages, planned.cluster)
    failed = [stage.name for stage, _ in caught.value.stages]
    assert len(failed) == len(made) - 1 > 1


def test_a_library_tests_what_it_is_given(chain_bundle: Bundle) -> None:
    """As a whole: its functions do not test their arguments each."""
    entry = chain_bundle.manifest.plan.stages[0]
    found = read_weights([chain_bundle.path_of(file) for file in entry.weight_files], entry.weight_names)
    weights = dict(zip(entry.weight_names, found, strict=True))
    (x,) = entry.inputs
    for shape, dtype, said in (
        ((4, 256), "float32", ""),
        ((4, 255), "float32", r"255 vs. 256.*shape\[1\] mismatch"),
        ((1024,), "float32", "expect Tensor with ndim 2 but get 1"),
        ((4, 256), "float64", "expect Tensor with dtype float32 but get float64"),
    ):
        spec = x.spec.model_copy(update={"shape": shape, "dtype": dtype})
        claimed = entry.model_copy(update={"inputs": (x.model_copy(update={"spec": spec}),)})
        runner = LlvmRunner(claimed, chain_bundle.path_of(entry.library), weights)
        with pytest.raises(Exception, match=said) if said else nullcontext():  # TVM raises many types
            runner.run([np.zeros(shape, dtype)])
