"""What ONNX Runtime runs is placed where there is one, priced by a measurement, and told of."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.fallback_models import detector
from tvmpipe.errors import InfeasibleError, PlanError
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Fused, Planned
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.reports.report import fallback_lines
from tvmpipe.targets.description.cluster import parse_cluster

SUPPRESSION, CELLS = "006.onnxruntime_NonMaxSuppression", "009.onnxruntime_NonZero"


@pytest.fixture(scope="module")
def fused() -> Fused:
    return driver.front(detector())


def planned(fused: Fused, folder: Path, has: dict[str, bool], **options: object) -> Planned:
    text = "".join(
        f'[[device]]\nname = "{name}"\ntarget = "x86-64-v3"\nthreads = 1\nonnxruntime = {str(here).lower()}\n'
        for name, here in has.items()
    )
    settings = BuildOptions(profiles=folder, time_limit_s=1, **options)  # type: ignore[arg-type]
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


def test_without_any_there_is_no_plan(fused: Fused, tmp_path: Path) -> None:
    with pytest.raises(
        InfeasibleError, match=r"ONNX Runtime must run 006\..*, and the cluster file says that no device"
    ):
        planned(fused, tmp_path, {"a": False, "b": False})


def test_its_price_is_measured_once_and_scaled(fused: Fused, tmp_path: Path) -> None:
    first = planned(fused, tmp_path, {"a": True, "b": True})
    rows = [json.loads(line) for line in (tmp_path / "onnxruntime.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    again = planned(fused, tmp_path, {"a": True, "b": True})
    assert again.costs.latency_s == first.costs.latency_s
    (tmp_path / "onnxruntime.jsonl").write_text("".join(json.dumps({**row, "seconds": 1.0}) + "\n" for row in rows))
    slow = planned(fused, tmp_path, {"a": True, "b": True})
    assert slow.costs.latency_s["a"][6] == slow.costs.latency_s["b"][9] >= 0.5
    assert "onnxruntime 2 (of this host, scaled)" in slow.costs.sources["a"]
    facts = slow.report()["fallback"]
    assert [one["primitive"] for one in facts] == [SUPPRESSION, CELLS]
    assert sum(one["share"] for one in facts) == pytest.approx(1.0, abs=1e-3)
    head, *each = fallback_lines(facts)
    assert head == "ONNX Runtime runs 5 nodes, 100.0% of the predicted computing (measured on this host, scaled)"
    assert "node 'nms' is a NonMaxSuppression: the shape of its result depends on the data; and 3 more" in each[0]
