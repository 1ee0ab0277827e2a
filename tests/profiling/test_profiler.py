"""Profiling: goes on where it was ended, shares work between devices, and says in one sentence what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.models import branchy
from tests.targets.cost.synthetic import measurements
from tvmpipe.cli import cli
from tvmpipe.errors import DeviceUnavailableError
from tvmpipe.passes import driver
from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.workloads import PrimitiveWorkload, workloads_of
from tvmpipe.profiling import profiler
from tvmpipe.profiling.profiler import profile
from tvmpipe.profiling.timing import Patience
from tvmpipe.profiling.watch import loops_of
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, Device, parse_cluster
from tvmpipe.targets.store.profile_store import ProfileStore

TWO = '[[device]]\nname = "alpha"\nthreads = 1\n[[device]]\nname = "beta"\nthreads = 1\n'


def no_code(*_: Any) -> bytes:
    """The library of a loop that no fake device runs."""
    return b""


Workloads = list[PrimitiveWorkload]


class FakeTimer:
    """A device on which everything takes a millisecond, until it dies; `large` is a shape it has no memory for."""

    def __init__(self, lives: int, large: tuple[int, ...] = ()) -> None:
        self.lives, self.large = lives, large

    def load(self, library: bytes) -> bytes:
        return library

    def send(self, arrays: Any) -> list[Any]:
        return []

    def tensors(self, shapes: Any) -> list[Any]:
        self.lives -= 1
        if self.lives < 0:
            raise RuntimeError("Socket closed")
        if any(shape == self.large for shape, _ in shapes):
            raise RuntimeError("\nout of memory")
        return []

    def samples(self, module: Any, tensors: Any, repeats: int, **_: Any) -> list[float]:
        if self.lives < 0:
            raise RuntimeError("Socket closed")
        return [1e-3] * repeats


@pytest.fixture(scope="module")
def workloads() -> Workloads:
    return workloads_of(branchy(), "branchy")


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many primitives each device times before it is gone; nothing is compiled."""
    left: dict[str, int] = {}

    @contextmanager
    def connect(tracker: str, device: Device, **_: Any) -> Iterator[FakeTimer]:
        if device.name not in left:
            raise DeviceUnavailableError(f"device {device.name} cannot be reached")
        yield FakeTimer(left[device.name])

    def compile_nothing(run: Any, group: Any) -> None:
        for kind in run.kinds:
            run._loops[kind.key] = loops_of(kind.target, 1, run.compile_loop)
            for workload in group.get(kind.key, ()):
                profiler._write(run.library(kind, workload), b"library")

    monkeypatch.setattr(profiler, "remote_timer", connect)
    monkeypatch.setattr(profiler._Run, "compile", compile_nothing)
    return left


def cluster(text: str = TWO) -> Cluster:
    return parse_cluster(text)


def test_it_goes_on_where_it_was_ended(tmp_path: Path, workloads: Workloads, lives: dict[str, int]) -> None:
    store, one = ProfileStore(tmp_path), cluster().only("alpha")
    assert len(workloads) > 3
    lives["alpha"] = 2
    first = profile(workloads, one, "", store, no_code)
    assert (first.measured, first.left) == (2, len(workloads) - 2)
    assert len(first.failures) == 1
    assert "alpha" in first.failures[0]
    lives["alpha"] = 100
    second = profile(workloads, one, "", store, no_code)
    assert (second.known, second.measured, second.left) == (2, len(workloads) - 2, 0)
    rows = store.read(one.devices[0].target, 1)
    assert [row.work for row in rows] == [workload.work for workload in workloads]
    assert {row.origin for row in rows} == {"branchy"}
    assert profile(workloads, one, "", store, no_code).measured == 0
    assert profile(workloads, one, "", store, no_code, again=True).measured == len(workloads)


def test_passes_measure_again_until_two_agree(tmp_path: Path, workloads: Workloads, lives: dict[str, int]) -> None:
    store, one = ProfileStore(tmp_path), cluster().only("alpha")
    lives["alpha"] = 1000
    outcome = profile(workloads, one, "", store, no_code, passes=5)
    assert (outcome.known, outcome.measured, outcome.left) == (0, 2 * len(workloads), 0)
    works = [row.work for row in store.read(one.devices[0].target, 1)]
    assert works == 2 * [workload.work for workload in workloads]
    assert profile(workloads, one, "", store, no_code, passes=5).known == len(workloads)


def test_equal_devices_share_the_work_and_one_may_fail(
    tmp_path: Path, workloads: Workloads, lives: dict[str, int]
) -> None:
    lives.update(alpha=1, beta=100)
    outcome = profile(workloads, cluster(), "", ProfileStore(tmp_path), no_code)
    assert outcome.measured >= len(workloads) - 1
    assert outcome.left <= 1


@pytest.mark.parametrize("passes", [1, 3])
def test_no_device_is_an_error(tmp_path: Path, workloads: Workloads, lives: dict[str, int], passes: int) -> None:
    with pytest.raises(DeviceUnavailableError, match="alpha"):
        profile(workloads, cluster().only("alpha"), "", ProfileStore(tmp_path), no_code, passes=passes)


def test_what_a_lost_device_leaves_is_counted(tmp_path: Path, workloads: Workloads, lives: dict[str, int]) -> None:
    lives["alpha"] = 2
    outcome = profile(workloads, cluster().only("alpha"), "", ProfileStore(tmp_path), no_code, passes=3)
    assert outcome.measured == 2
    assert outcome.left >= len(workloads) - 2


def test_what_a_device_cannot_hold_costs_only_itself(
    tmp_path: Path, workloads: Workloads, lives: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tuple(int(extent) for extent in workloads[0].function.params[0].shape)

    @contextmanager
    def connect(tracker: str, device: Device, **_: Any) -> Iterator[FakeTimer]:
        yield FakeTimer(100, large)

    monkeypatch.setattr(profiler, "remote_timer", connect)
    outcome = profile(workloads, cluster().only("alpha"), "", ProfileStore(tmp_path), no_code)
    assert outcome.left == 0
    assert 0 < outcome.measured < len(workloads)
    assert outcome.measured + len(outcome.failures) == len(workloads)
    assert all("out of memory" in failure for failure in outcome.failures)


def test_a_budget_ends_it(tmp_path: Path, workloads: Workloads, lives: dict[str, int]) -> None:
    lives["alpha"] = 100
    outcome = profile(workloads, cluster().only("alpha"), "", ProfileStore(tmp_path), no_code, budget_s=0.0)
    assert (outcome.measured, outcome.left) == (0, len(workloads))


def test_on_a_device(tmp_path: Path, chain_path: Path, agents: LocalCluster) -> None:
    """Compiled, sent, timed and kept; a plan then uses it."""
    one = cluster().only("alpha")
    store = ProfileStore(tmp_path)
    workloads = workloads_of(chain_path, "chain")
    patience = Patience(batch=3, most=3, attempts=1, pause_s=0)
    outcome = profile(workloads, one, agents.tracker, store, compile_function, patience=patience)
    assert (outcome.measured, outcome.failures) == (len(workloads), [])
    device = one.devices[0]
    facts = store.device(device.target, 1)
    assert facts is not None
    assert facts.peak_flops > 1e8
    assert facts.memory_bandwidth_bps > 1e8
    state = driver.plan(driver.front(chain_path), one, BuildOptions(cost_model=LearnedCost([store])))
    (shown,) = state.report()["devices"]
    assert "profile" in shown["cost_source"]
    seconds = sum(row.network_s for row in store.read(device.target, 1))
    assert shown["compute_s"] > seconds


def test_the_plan_says_what_nobody_measured(chain_path: Path) -> None:
    text = '[[device]]\nname = "pi"\ntarget = "pi4"\n'
    state = driver.plan(driver.front(chain_path), cluster(text), BuildOptions(cost_model=Roofline()))
    assert any("nobody has measured" in note and "pi" in note for note in state.notes)
    assert all(high > low for low, high in zip(state.costs.low_s["pi"], state.costs.high_s["pi"], strict=True))


def test_folder_of_profiles_is_used(tmp_path: Path, chain_path: Path) -> None:
    target = find_target("x86-64-v3")
    ProfileStore(tmp_path).add_all(target, 1, measurements(target, 1, 64))
    text = '[[device]]\nname = "desk"\ntarget = "x86-64-v3"\nthreads = 1\n'
    state = driver.plan(driver.front(chain_path), cluster(text), BuildOptions(profiles=tmp_path))
    assert "xgboost" in state.costs.sources["desk"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere.onnx", "--cluster", "{cluster}"], 1, "nowhere.onnx"),
        (["{model}", "--cluster", "nowhere.toml"], 1, "nowhere.toml does not exist"),
        (["{model}", "--cluster", "{cluster}"], 4, "no tracker answers at 127.0.0.1:1"),
        (["{model}", "--cluster", "{cluster}", "--store", "{model}"], 1, "is no folder"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, chain_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(TWO)
    words = [word.format(cluster=path, model=chain_path) for word in arguments]
    if "--store" not in words:
        words += ["--store", str(tmp_path / "store")]
    result = CliRunner().invoke(cli, ["profile", *words, "--tracker", "127.0.0.1:1", "--json"])
    assert result.exit_code == code, result.output
    answer = json.loads(result.stdout)
    assert sentence in answer["message"]
    assert "\n" not in answer["message"]
