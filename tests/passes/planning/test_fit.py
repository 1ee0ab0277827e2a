"""What TVM allocates for compiled stages is what bundles, reports and the check of memories go by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tvmpipe
from tests.models import branchy
from tvmpipe.errors import InfeasibleError
from tvmpipe.passes import driver
from tvmpipe.passes.driver import Planned
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.description.cluster import parse_cluster

ROOMY = '[[device]]\nname = "roomy"\ntarget = "x86-64-v3"\nthreads = 1\nslowdown = 50\n'


def tight(memory_bytes: int) -> str:
    return f'[[device]]\nname = "tight"\ntarget = "x86-64-v3"\nthreads = 1\nmemory = {memory_bytes}\n'


def counted() -> Planned:
    """The whole model on one device, as planned before anything is compiled."""
    return driver.plan(driver.front(branchy()), parse_cluster(tight(1 << 30)), BuildOptions(time_limit_s=1))


@pytest.fixture(scope="module")
def between() -> int:
    """A memory that is enough for what is alive in `branchy` at a time, and too little for what TVM allocates."""
    needed = counted().plan.loads["tight"].held_bytes
    (stage,) = tvmpipe.build(branchy(), parse_cluster(tight(1 << 30)), time_limit_s=1).manifest.plan.stages
    assert 1.1 * needed < stage.memory_bytes < 1.5 * needed
    return (needed + stage.memory_bytes) // 2


def test_what_does_not_fit_once_compiled_is_planned_again(between: int) -> None:
    bundle = tvmpipe.build(branchy(), parse_cluster(tight(between) + ROOMY), time_limit_s=1)
    stages = bundle.manifest.plan.stages
    assert {stage.device for stage in stages} == {"roomy"} or len(stages) > 1
    held = {device: sum(s.memory_bytes for s in stages if s.device == device) for device in ("tight", "roomy")}
    assert held["tight"] <= between
    report = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
    told = {device["name"]: device["weight_bytes"] + device["activation_bytes"] for device in report["devices"]}
    assert told == held
    assert {device["name"]: device["memory_bytes"] for device in report["devices"]} == {"tight": between, "roomy": None}
    assert [stage["activation_bytes"] for stage in report["stages"]] == [stage.activation_bytes for stage in stages]


def test_what_fits_nowhere_once_compiled_is_refused(between: int) -> None:
    cluster = parse_cluster(tight(between))
    with pytest.raises(InfeasibleError, match=r"^compiled, the plan takes more memory than there is: tight misses \d+"):
        tvmpipe.build(branchy(), cluster, time_limit_s=1)


def all_on(device: str, folder: Path) -> Path:
    graph = counted().graph
    plan = folder / "plan.yaml"
    plan.write_text("placement:\n" + "".join(f"  {name}: {device}\n" for name in graph.by_name()))
    return plan


def test_a_plan_file_is_refused_and_not_changed(between: int, tmp_path: Path) -> None:
    plan = all_on("tight", tmp_path)
    with pytest.raises(InfeasibleError, match=r"^compiled, the plan file takes more memory than there is: tight"):
        tvmpipe.build(branchy(), parse_cluster(tight(between) + ROOMY), plan=plan)


def test_a_spare_plan_that_does_not_fit_is_a_note(between: int, tmp_path: Path) -> None:
    """Without `roomy` all of it would have to be on `tight`."""
    cluster = parse_cluster(tight(between) + ROOMY.replace("slowdown = 50\n", ""))
    bundle = tvmpipe.build(branchy(), cluster, plan=all_on("roomy", tmp_path), failover=True, time_limit_s=1)
    assert [plan.lost for plan in bundle.manifest.plans] == [None]
    notes = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))["notes"]
    assert any(note.startswith("without roomy the model cannot run:") and "tight misses" in note for note in notes)
    used = {stage.library.path for stage in bundle.manifest.plan.stages}
    assert {path.relative_to(bundle.root).as_posix() for path in (bundle.root / "stages").iterdir()} == used
