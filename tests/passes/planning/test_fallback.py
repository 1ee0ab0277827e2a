"""What ONNX Runtime runs is placed where there is one, priced by a measurement, and told of."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from onnx import TensorProto, helper

from tests.fallback_models import detector
from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Fused, Planned
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.plan import left_nodes, to_yaml
from tvmpipe.passes.reports.report import fallback_lines
from tvmpipe.passes.workloads import workloads_of
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.targets.store.profile_store import ProfileStore
from tvmpipe.targets.store.stage_times import stage_time

SUPPRESSION, CELLS = "006.onnxruntime_NonMaxSuppression", "009.onnxruntime_NonZero"


@pytest.fixture(scope="module")
def fused() -> Fused:
    return driver.front(detector())


def planned(fused: Fused, folder: Path, has: dict[str, bool], **options: object) -> Planned:
    text = "".join(
        f'[[device]]\nname = "{name}"\ntarget = "x86-64-v3"\nthreads = 1\nonnxruntime = {str(here).lower()}\n'
        for name, here in has.items()
    )
    settings = BuildOptions(profiles=folder, time_limit_s=1, **{"cost_model": Roofline(), **options})  # type: ignore[arg-type]
    return driver.plan(fused, parse_cluster(text), settings)


@pytest.mark.parametrize("failover", [False, True])
def test_it_goes_only_where_there_is_an_onnx_runtime(fused: Fused, tmp_path: Path, failover: bool) -> None:
    made = planned(fused, tmp_path, {"a": False, "b": True, "c": False}, failover=failover)
    assert {made.plan.placement[name] for name in (SUPPRESSION, CELLS)} == {("b",)}
    assert made.plan.single_device_s["a"] is None
    assert math.isfinite(made.plan.period_s)
    if failover:
        assert {spare.lost for spare in made.spares} <= {"a", "c"}
        assert any("without b the model cannot run: ONNX Runtime must run" in note for note in made.notes), made.notes


def test_it_may_be_pinned_where_there_is_one(fused: Fused, tmp_path: Path) -> None:
    has = {"a": True, "b": False, "c": True}
    made = planned(fused, tmp_path, has, pins={"nms": "c", "stem": "a"})
    assert made.plan.placement[SUPPRESSION] == ("c",)
    stage = next(stage for stage in made.plan.stages if 6 in stage.primitives)
    assert (stage.devices, stage.codegen) == (("c",), "onnxruntime")
    with pytest.raises(PlanError, match=r"pin puts 006.* on 'b', which has no ONNX Runtime; allowed: a, c"):
        planned(fused, tmp_path, has, pins={"nms": "b"})
    file = tmp_path / "plan.yaml"
    file.write_text('placement:\n  "*": b\n')
    with pytest.raises(PlanError, match=r"the plan file puts 006.* on 'b', which has no ONNX Runtime"):
        planned(fused, tmp_path, has, plan=file)


def test_it_keeps_to_the_memory_of_a_device(tmp_path: Path) -> None:
    """Where a million numbers find places in, 16 MB at once, is no device of 12 MB, though it is the faster one."""
    node = helper.make_node("NonZero", ["x"], ["y"], name="places")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 << 20])
    graph = helper.make_graph([node], "g", [given], [helper.make_tensor_value_info("y", TensorProto.INT64, None)])
    found = driver.front(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    made = {}
    for memory in ("12MiB", "64MiB"):
        text = f'[[device]]\nname = "a"\ntarget = "x86-64-v3"\nthreads = 1\nmemory = "{memory}"\n'
        text += '[[device]]\nname = "b"\ntarget = "x86-64-v3"\nthreads = 1\nslowdown = 5\n'
        options = BuildOptions(profiles=tmp_path, time_limit_s=1, cost_model=Roofline())
        made[memory] = driver.plan(found, parse_cluster(text), options).plan
    assert {memory: list(plan.loads) for memory, plan in made.items()} == {"12MiB": ["b"], "64MiB": ["a"]}
    assert made["12MiB"].single_device_s["a"] is None
    (load,) = made["64MiB"].loads.values()
    # Its input twice, and eight bytes for each place.
    assert load.activation_bytes == (2 * 4 + 8) << 20


def test_without_any_there_is_no_plan(fused: Fused, tmp_path: Path) -> None:
    with pytest.raises(
        InfeasibleError, match=r"ONNX Runtime must run 006\..*, and the cluster file says that no device"
    ):
        planned(fused, tmp_path, {"a": False, "b": False})


def set_times(folder: Path, seconds: float) -> int:
    """What was measured took so long, for all that is known; how many there were."""
    file = folder / "onnxruntime.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "seconds": seconds}) + "\n" for row in rows))
    return len(rows)


def test_its_price_is_measured_once_and_scaled(fused: Fused, tmp_path: Path) -> None:
    first = planned(fused, tmp_path, {"a": True, "b": True})
    again = planned(fused, tmp_path, {"a": True, "b": True})
    assert again.costs.latency_s == first.costs.latency_s
    assert set_times(tmp_path, 1.0) == 2
    slow = planned(fused, tmp_path, {"a": True, "b": True})
    assert slow.costs.latency_s["a"][6] == slow.costs.latency_s["b"][9] >= 0.5
    assert "onnxruntime 2 (of this host, scaled)" in slow.costs.sources["a"]
    facts = slow.report()["fallback"]
    assert [one["primitive"] for one in facts] == [SUPPRESSION, CELLS]
    assert sum(one["share"] for one in facts) == pytest.approx(1.0, abs=1e-3)
    head, *each = fallback_lines(facts)
    told = "ONNX Runtime runs 5 nodes, 100.0% of the predicted computing (measured on this host, scaled) and "
    assert head.startswith(told)
    assert 0 < sum(one["flops_share"] for one in facts) < 0.1
    assert head.removeprefix(told) == f"{sum(one['flops_share'] for one in facts):.1%} of the FLOPs"
    assert "node 'nms' is a NonMaxSuppression: the shape of its result depends on the data; and 3 more" in each[0]


def test_a_stage_that_ran_corrects_its_price(fused: Fused, tmp_path: Path) -> None:
    """As `run --learn` keeps it, on devices that have an ONNX Runtime."""
    has = {"a": True, "b": False}
    planned(fused, tmp_path, has)
    set_times(tmp_path, 1e-3)
    pins, learning = {"*": "a"}, LearnedCost([ProfileStore(tmp_path)])
    manifest = driver.compile(planned(fused, tmp_path, has, pins=pins)).bundle.manifest
    before = manifest.plan.stages[1]
    assert manifest.code is not None
    assert list(manifest.code.calls) == ["s0", "s1"]
    row = stage_time(
        [before.predicted_compute_s * 1.5] * 9,
        manifest.code.calls[before.name],
        sum(tensor.spec.size_bytes for tensor in before.inputs),
        slowdown=1.0,
        schedule=manifest.code.schedule,
        tvm=manifest.tools["apache-tvm"],
        when="2026-01-01T00:00:00Z",
        origin="detector",
    )
    assert row is not None
    ProfileStore(tmp_path).add_all(manifest.device("a"), 1, [row])
    after = planned(fused, tmp_path, has, pins=pins, cost_model=learning)
    (stage,) = (one for one in after.report()["stages"] if one["first"] == SUPPRESSION)
    assert stage["compute_s"] == pytest.approx(before.predicted_compute_s * 1.5, rel=1e-3)
    assert any("by 1 stage that ran on its target" in note for note in after.notes)


def test_profile_leaves_it_out() -> None:
    """Of a detector the compiled primitives are measured on devices; what ONNX Runtime runs was, on this host."""
    found = workloads_of(detector(), "detector")
    assert len(found) >= 4
    assert not any("NonMaxSuppression" in workload.work.operators for workload in found)


def test_a_plan_file_says_why_and_may_leave_more(fused: Fused, tmp_path: Path) -> None:
    made = planned(fused, tmp_path, {"a": True})
    file = tmp_path / "plan.yaml"
    text = to_yaml(made.plan, made.graph, made.signature.sha256)
    file.write_text(text)
    reasons = yaml.safe_load(text)["onnxruntime"]
    assert list(reasons) == ["nms", "pick", "Squeeze:flat_ids", "take", "above_half"]
    assert reasons["nms"] == "node 'nms' is a NonMaxSuppression: the shape of its result depends on the data"
    again = planned(fused, tmp_path, {"a": True}, plan=file)
    assert to_yaml(again.plan, again.graph, again.signature.sha256) == text
    everything = {"onnxruntime": ["head"], "placement": {"*": "a"}}
    file.write_text(yaml.safe_dump(everything))
    more = planned(fused, tmp_path, {"a": True}, plan=file)
    assert left_nodes(more.graph)["head"] == "the plan file leaves node 'head' to it"
    file.write_text(yaml.safe_dump({**everything, "onnxruntime": {"nobody": "a whim"}}))
    with pytest.raises(PlanError, match="leaves 'nobody' to ONNX Runtime, which is no ONNX node of this model"):
        planned(fused, tmp_path, {"a": True}, plan=file)
    file.write_text(yaml.safe_dump({**everything, "onnxruntime": 3}))
    with pytest.raises(PlanError, match="has an 'onnxruntime' that names no ONNX nodes"):
        planned(fused, tmp_path, {"a": True}, plan=file)
