"""Plans of what an elastic bundle keeps: the same model, for other devices, compiled where it was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tvmpipe
from tests.fallback_models import detector, images
from tests.models import chain, save
from tests.passes.frontend.states.decoders import Decoder
from tests.passes.open_models import bert_like
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.consistency import inconsistency
from tvmpipe.elastic.planner import Planner
from tvmpipe.elastic.replanner import Replanner
from tvmpipe.errors import BundleError, ClusterError, DeviceError, InfeasibleError, InputError
from tvmpipe.manifest import FileEntry, PlanEntry
from tvmpipe.passes.objectives import find_objective
from tvmpipe.runtime.emulation.inprocess import InProcess, run_in_process
from tvmpipe.runtime.head.replanner import Extension, Request, Speeds, extended
from tvmpipe.targets.description.cluster import parse_cluster

TWO = parse_cluster("".join(f'[[device]]\nname = "{name}"\nthreads = 1\nslowdown = 50\n' for name in "ab"))
Run = Callable[[InProcess], list[dict[str, Any]]]


def on_samples(pipe: InProcess) -> list[dict[str, Any]]:
    return [pipe.run(sample) for sample in random_samples(pipe.manifest, 2, seed=1)]


def on_texts(pipe: InProcess) -> list[dict[str, Any]]:
    ids = np.arange(1, 10, dtype=np.int64)
    lengths = (2, 5, 9)
    return [pipe.run({"ids": ids[None, :n], "mask": np.ones((1, n), np.int64)}) for n in lengths]


def on_images(pipe: InProcess) -> list[dict[str, Any]]:
    return [pipe.run(sample) for sample in images(2)]


def on_steps(pipe: InProcess) -> list[dict[str, Any]]:
    with pipe.sequence() as sequence:
        return [sequence.step({"input_ids": np.array([ids])}) for ids in ([1, 2, 3, 4], [5], [6, 7])]


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, Any], Run]] = {
    "chain": (chain, {}, on_samples),
    "buckets": (
        bert_like,
        {"shapes": {"ids": [1, {3, 9}]}, "dims": {"batch": 1}, "pads": {"ids": 0, "mask": 0}},
        on_texts,
    ),
    "fallback": (detector, {}, on_images),
    "steps": (lambda: Decoder().model(), {"context": 32, "sequences": 2, "buckets": {"step": [1, 4]}}, on_steps),
}


class Made:
    """Files of a plan that a planner made here."""

    def __init__(self, bundle: Bundle, root: Path) -> None:
        self.bundle, self.root = bundle, root

    def path_of(self, entry: FileEntry) -> Path:
        return (self.root if entry.path.startswith("elastic/") else self.bundle.root) / entry.path


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Bundle, Run]:
    model, options, run = CASES[request.param]
    return tvmpipe.build(model(), TWO, elastic=True, time_limit_s=1.0, **options), run


def planned(planner: Planner, *present: str) -> tuple[PlanEntry, tuple[Any, ...]]:
    return planner.make(planner.propose(Request(present, Speeds(), 1.0)).number)


def test_other_plans_compute_what_the_first_does(case: tuple[Bundle, Run], tmp_path: Path) -> None:
    bundle, run = case
    with run_in_process(bundle) as pipe:
        wanted = run(pipe)
    planner = Planner(bundle, tmp_path, None)
    planner.describe("c", "some-key", {"threads": 1, "slowdown": 50})
    for present in (("c",), ("b", "c")):
        plan, devices = planned(planner, *present)
        assert {device.name for device in devices} == set(plan.devices) <= set(present)
        files = Made(bundle, tmp_path)
        manifest = extended(bundle.manifest, Extension(plan, devices, files))
        alone = manifest.model_copy(
            update={
                "plans": (plan,),
                "files": (*manifest.files, *{stage.library for stage in plan.stages}),
                "code": None,
            }
        )
        assert inconsistency(alone) is None
        with InProcess(manifest, files, plan) as pipe:
            for found, want in zip(run(pipe), wanted, strict=True):
                for name in want:
                    np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-6)


def test_weights_are_in_the_bundle_once_and_libraries_are_compiled_once(tmp_path: Path) -> None:
    bundle = tvmpipe.build(chain(), TWO, elastic=True)
    weights = sum(entry.size_bytes for entry in bundle.manifest.files if entry.path.startswith("weights/"))
    assert weights < 6 * 256 * 256 * 4 * 1.01
    assert bundle.manifest.elastic is not None
    assert bundle.manifest.elastic.size_bytes < 100_000
    planner = Planner(bundle, tmp_path, None)
    again = planner.propose(Request(("a", "b"), Speeds(), 1.0))
    assert again.compile_s == 0.0
    plan, _ = planner.make(again.number)
    assert {stage.library.sha256 for stage in plan.stages} == {
        stage.library.sha256 for stage in bundle.manifest.plan.stages
    }, "the device has them"
    assert {entry for stage in plan.stages for entry in stage.weight_files} <= set(bundle.manifest.files)
    one = planner.propose(Request(("b",), Speeds(), 1.0))
    assert one.compile_s > 0
    planner.make(one.number)
    assert planner.propose(Request(("a",), Speeds(), 1.0)).compile_s == 0.0, "the same code for the same target"


def test_measured_speeds_move_the_work(tmp_path: Path) -> None:
    planner = Planner(tvmpipe.build(chain(width=1024), TWO, elastic=True), tmp_path, None)
    even, _ = planned(planner, "a", "b")
    fast = planner.propose(Request(("a", "b"), Speeds({"b": 2.0}), 1.0))
    moved, _ = planner.make(fast.number)
    count = [sum(len(stage.weight_names) for stage in plan.stages if stage.device == "a") for plan in (even, moved)]
    assert count == [3, 4]
    slow = Speeds({}, {("a", "b"): 1e5})
    assert len(planner.propose(Request(("a", "b"), slow, 1.0)).weights) == 1, "the link is not worth it any more"


def test_what_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="keeps nothing of its compilation; compile it with --elastic"):
        Replanner(tvmpipe.build(chain(), TWO))
    bundle = tvmpipe.build(chain(), TWO, elastic=True)
    planner = Planner(bundle, tmp_path, None)
    with pytest.raises(InfeasibleError, match="no device is left"):
        planner.propose(Request((), Speeds(), 1.0))
    with pytest.raises(ClusterError, match="nothing is known of device 'd'"):
        planner.propose(Request(("d",), Speeds(), 1.0))
    with pytest.raises(ClusterError, match="target 'pi9' is not known"):
        planner.describe("d", "d", {"target": "pi9"})
    with pytest.raises(ClusterError, match="allowed: name, key, target"):
        planner.describe("d", "d", {"colour": "red"})
    planner.describe("d", "d", {"memory": "1MB"})
    with pytest.raises(InfeasibleError, match="d"):
        planner.propose(Request(("d",), Speeds(), 1.0))


def test_an_objective_without_a_name_cannot_be_kept() -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match="an elastic bundle keeps the objectives throughput, latency, not 'mine'"):
        tvmpipe.build(chain(), TWO, elastic=True, objective=replace(find_objective("latency"), name="mine"))


@pytest.mark.parametrize("damage", ["{", '{"format": 7}', '{"format": 1}', "module", "weight"])
def test_a_damaged_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    bundle = tvmpipe.build(chain(), TWO, elastic=True)
    file = bundle.root / "elastic.json"
    told = json.loads(file.read_text())
    if damage == "module":
        told["buckets"][0]["module"] = told["buckets"][0]["module"][:1000]
    elif damage == "weight":
        told["buckets"][0]["module"] = told["buckets"][0]["module"].replace("weight.", "weight.0")
    file.write_text(json.dumps(told) if damage in ("module", "weight") else damage)
    with pytest.raises(BundleError):
        Planner(bundle, tmp_path, None)


def test_bundles_are_the_same_each_time(tmp_path: Path) -> None:
    first, second = (tvmpipe.build(save(chain(), tmp_path), TWO, elastic=True).manifest for _ in range(2))
    assert first == second


def test_the_process_that_plans(tmp_path: Path) -> None:
    bundle = tvmpipe.build(chain(), TWO, elastic=True)
    replanner = Replanner(bundle)
    assert replanner.describe("c", "kc", {"threads": 2}).threads == 2
    extension = replanner.make(replanner.propose(Request(("c",), Speeds({"c": 2.0}, {("a", "c"): 2.0}), 1.0)))
    assert extension.plan.devices == ("c",)
    assert all(extension.files.path_of(stage.library).is_file() for stage in extension.plan.stages)
    with pytest.raises(InfeasibleError, match="no device is left"):
        replanner.propose(Request((), Speeds(), 1.0))
    replanner.close()
    with pytest.raises(DeviceError, match="has ended: the pipeline was closed"):
        replanner.propose(Request(("c",), Speeds(), 1.0))
