"""Tuning: measured on the device, never slower than the rule, remembered and used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import tvmpipe
from tests.passes.compiled import model_of
from tvmpipe.errors import DeviceUnavailableError, InputError
from tvmpipe.passes import driver
from tvmpipe.passes.backend import tune
from tvmpipe.passes.backend.partition import partition
from tvmpipe.passes.backend.records import open_records
from tvmpipe.passes.backend.tune import _Candidate, _tune_function
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.kernels.schedule import apply_rules, narrow, schedule_function
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import Device, parse_cluster
from tvmpipe.targets.description.cpu_model import Choices, describe_cpu

ONE = '[[device]]\nname = "alpha"\ntarget = "native"\nthreads = 1\n'


@pytest.fixture(scope="module")
def primitive(chain_path: Path) -> tuple[Any, Device]:
    """A matmul with tanh, and the device it is for."""
    cluster = parse_cluster(ONE)
    planned = driver.plan(driver.front(chain_path), cluster)
    module = partition(planned.graph, planned.module, planned.plan).stages[0].module
    (name,) = (gvar.name_hint for gvar in module.get_global_vars() if "matmul" in gvar.name_hint)
    return module[name], cluster.devices[0]


def test_a_rule_says_what_it_may_decide(primitive: tuple[Any, Device]) -> None:
    function, device = primitive
    choices = Choices()
    own = apply_rules(narrow(function), describe_cpu(device.target, 1, choices))
    assert set(choices.offered) == {"tile", "group"}
    for name, candidates in choices.offered.items():
        assert len(candidates) == len(set(candidates)) > 1, name
    other = apply_rules(narrow(function), describe_cpu(device.target, 1, Choices({"tile": choices.offered["tile"][1]})))
    assert str(own.mod) != str(other.mod)


def test_what_is_on_record_is_used(primitive: tuple[Any, Device], tmp_path: Path) -> None:
    function, device = primitive
    offered = _Candidate(function, device, {}).offered
    made = {"tile": offered["tile"][-1]}
    better = _Candidate(function, device, made)
    open_records(tmp_path, device.target, 1).add(better.function, better.schedule, 1e-6)
    known = open_records(tmp_path, device.target, 1)  # read from the files, as another process would
    machine = describe_cpu(device.target, 1)
    assert str(schedule_function(function, machine, known)) == str(
        schedule_function(function, describe_cpu(device.target, 1, Choices(made)))
    )
    assert str(schedule_function(function, machine)) != str(schedule_function(function, machine, known))


class FakeTimer:
    """A device on which every function takes the time that a table says."""

    def __init__(self, seconds: list[float]) -> None:
        self.times = seconds
        self.loaded = 0

    def load(self, library: bytes) -> int:
        self.loaded += 1
        return self.loaded - 1

    def tensors(self, shapes: list[tuple[tuple[int, ...], str]]) -> list[Any]:
        return []

    def seconds(self, module: int, tensors: list[Any]) -> float:
        return self.times[module]


@pytest.mark.parametrize(
    ("times", "kept"), [([1.0, 2.0, 0.5], True), ([1.0, 2.0, 0.99], False), ([1.0, 2.0, 3.0], False)]
)
def test_only_what_is_clearly_faster_is_kept(
    primitive: tuple[Any, Device], tmp_path: Path, times: list[float], kept: bool
) -> None:
    function, device = primitive
    timer: Any = FakeTimer(times)
    _tune_function("matmul", _Candidate(function, device, {}), len(times), tmp_path, timer)
    assert timer.loaded == len(times)
    found = open_records(tmp_path, device.target, 1).find(narrow(function))
    assert (found is not None) == kept


def test_every_bucket_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in none of the largest bucket's stages too; what several have once."""
    tuned: list[list[tuple[int, ...]]] = []

    def tune_function(_name: str, baseline: _Candidate, *_: object) -> None:
        tuned.append([tuple(int(extent) for extent in one.shape) for one in baseline.function.params])

    @contextlib.contextmanager
    def remote_timer(*_: object) -> Iterator[FakeTimer]:
        yield FakeTimer([1.0] * 99)

    monkeypatch.setattr(tune, "_tune_function", tune_function)
    monkeypatch.setattr(tune, "remote_timer", remote_timer)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["z", "w"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=0),
    ]
    model = model_of(nodes, {"x": [5, 16], "z": [3, 16]}, {"w": np.ones((16, 16), np.float32)})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    options = BuildOptions(tune=1, records=tmp_path, tracker="none:1", cost_model=Roofline())
    fused = driver.front(model, ImportOptions(buckets={"N": [2, 5]}))
    driver.compile(driver.plan(fused, parse_cluster(ONE), options))
    products = [shapes[0] for shapes in tuned if np.prod(shapes[1]) == 16 * 16]
    assert products == [(5, 16), (3, 16), (2, 16)]


def test_tuning_on_a_device(chain_path: Path, tmp_path: Path, agents: LocalCluster) -> None:
    cluster = parse_cluster(ONE)
    records = tmp_path / "records"
    bundle = tvmpipe.build(chain_path, cluster, records=records, tune=2, tracker=agents.tracker)
    again = tvmpipe.build(chain_path, cluster, records=records)
    sample = {"x": np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256)}
    reference = Reference(chain_path, 1)
    for one in (bundle, again):
        with run_in_process(one) as pipe:
            assert reference.compare(pipe.run(sample), sample).equal


def test_tuning_needs_devices_and_a_folder(chain_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tracker"):
        tvmpipe.build(chain_path, parse_cluster(ONE), tune=2, records=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        tvmpipe.build(chain_path, parse_cluster(ONE), records=tmp_path / "nowhere")
    with pytest.raises(DeviceUnavailableError, match="alpha"):
        tvmpipe.build(chain_path, parse_cluster(ONE), tune=2, records=tmp_path, tracker="127.0.0.1:1")
