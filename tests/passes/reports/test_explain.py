"""Explanations: what is left over adds up, what is unused says why, costs stand beside what was measured, and changes
are worth what planning again says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.models import chain
from tests.passes.planning.test_place import cluster_of
from tests.targets.cost.synthetic import measurements
from tvmpipe.passes import driver
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, Device, parse_cluster
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION
from tvmpipe.targets.store.stage_times import StageTime


def explained(cluster: Cluster, **options: Any) -> tuple[Any, dict[str, Any]]:
    state = driver.plan(driver.front(chain(6, 512)), cluster, BuildOptions(time_limit_s=10, **options))
    names: list[str] = []
    facts = driver.explain(state, 10.0, lambda name, number, total: names.append(name))
    assert [change["change"] for change in facts["what_if"]] == names
    return state.plan, facts


NEAR = '[network]\nbandwidth = "10Gbps"\nlatency = "1us"\n'


def test_a_balanced_pipeline() -> None:
    text = NEAR + "".join(f'[[device]]\nname = "d{i}"\ntarget = "x86-64-v2"\nthreads = 1\n' for i in range(2))
    plan, facts = explained(parse_cluster(text))
    assert set(plan.loads) == {"d0", "d1"}
    assert facts["balance"] == pytest.approx(1, abs=0.05)
    for device in facts["devices"]:
        assert device["busy_s"] + device["spare_s"] == pytest.approx(plan.period_s)
    changes = {change["change"]: change for change in facts["what_if"]}
    # The two are of one kind, so that only one of them is asked for; three devices share six layers evenly, and each
    # enters its stage (`STAGE_S`) however few layers it has, so that it is somewhat less than 1.5.
    assert set(changes) == {"one more d0", "twice the bandwidth", "devices in turn (--replicate)"}
    assert 1.3 < changes["one more d0"]["speedup"] <= 1.5
    assert changes["devices in turn (--replicate)"]["speedup"] == pytest.approx(1, abs=0.05)


def test_changes_of_a_robust_plan_are_worth_what_it_was_chosen_by() -> None:
    """Nothing is measured: every cost may be twice its roofline, and so may the period with one device more."""
    text = NEAR + "".join(f'[[device]]\nname = "d{i}"\ntarget = "x86-64-v2"\nthreads = 1\n' for i in range(2))
    plan, facts = explained(parse_cluster(text), robust=True, cost_model=Roofline())
    assert plan.pessimistic is not None
    assert plan.chosen_by_s > 1.5 * plan.value_s
    assert (facts["figure_s"], facts["chosen_by_s"]) == (plan.value_s, plan.chosen_by_s)
    changes = {change["change"]: change for change in facts["what_if"]}
    more = changes["one more d0"]
    assert more["speedup"] == pytest.approx(1.5, abs=0.1)
    assert more["figure_s"] == pytest.approx(plan.pessimistic.period_s / more["speedup"])


def test_a_device_behind_a_slow_link_is_told_so() -> None:
    text = '[[device]]\nname = "near"\nthreads = 1\n[[device]]\nname = "far"\nthreads = 1\n' + "".join(
        f'[[link]]\nbetween = ["far", "{other}"]\nbandwidth = "10kbps"\n' for other in ("near", "head")
    )
    plan, facts = explained(parse_cluster(text))
    assert set(plan.loads) == {"near"}
    (far,) = [device for device in facts["devices"] if device["name"] == "far"]
    assert not far["used"]
    assert "instead of" in far["why_unused"]
    assert "its link" in far["why_unused"]
    # By hand: 4 x 512 floats, 8 KiB, at 1,250 bytes/s.
    assert far["why_unused"].endswith("takes 6.55 s a sample")


def test_a_device_without_memory_is_told_so() -> None:
    _, facts = explained(cluster_of("1GiB", "100KiB"))
    (small,) = [device for device in facts["devices"] if not device["used"]]
    assert "its 100.0 KiB of memory are" in small["why_unused"]


def test_a_pinned_model_is_told_so() -> None:
    _, facts = explained(cluster_of("1GiB", "1GiB"), pins={"*": "d0"})
    assert facts["devices"][1]["why_unused"] == "pins keep every stage elsewhere"


def planned(cluster: Cluster, model: LearnedCost) -> Any:
    return driver.plan(driver.front(chain(6, 512)), cluster, BuildOptions(cost_model=model))


def measured_as(works: Sequence[Work], factors: Sequence[float], target: TargetDescription) -> list[Measurement]:
    """Rows of primitives that take so many times what their roofline says."""
    device = Device("d", "d", target, 1, None)
    like = measurements(target, 1, 1)[0]
    rows = []
    for work, factor in zip(works, factors, strict=True):
        seconds = factor * Roofline(call_s=0.0).estimate(work, device).latency_s
        rows.append(replace(like, work=work, seconds=seconds, low_s=seconds, high_s=seconds))
    return rows


def test_predicted_stands_beside_measured(tmp_path: Path) -> None:
    """Rows at twice the roofline and more; nothing else is known of the target, so that the roofline predicts."""
    target, store = find_target("x86-64-v2"), ProfileStore(tmp_path)
    one = parse_cluster('[[device]]\nname = "solo"\ntarget = "x86-64-v2"\nthreads = 1\nslowdown = 3\n')
    model = LearnedCost([store])
    plain = planned(one, model)
    assert driver.explain(plain, 1.0)["measured"] == []
    works = list({work.key: work for work in plain.costs.works if not work.view}.values())
    store.add_all(target, 1, measured_as(works, [2.0 + place for place in range(len(works))], target))
    state = planned(one, LearnedCost([store]))
    (facts,) = driver.explain(state, 1.0)["measured"]
    graph = state.graph
    named = {graph.primitives[place].name: work for place, work in enumerate(state.costs.works)}
    worst = facts["most_wrong"]
    work = named[worst["primitive"]]
    roofline = Roofline().estimate(work, one.devices[0]).latency_s * 3
    assert worst["predicted_by"] == "roofline"
    assert worst["predicted_s"] == pytest.approx(roofline)
    off = {w.key: abs(m - p) for w, p, m in seconds_of(state, works)}
    calls = Counter(w.key for w in state.costs.works)
    assert off[work.key] * calls[work.key] == pytest.approx(max(off[key] * calls[key] for key in off))
    assert facts["predicted_s"] == pytest.approx(sum(plain.costs.latency_s["solo"]), rel=1e-3)
    assert facts["measured_s"] == pytest.approx(sum(state.costs.latency_s["solo"]), rel=1e-3)
    assert facts["stages"] == []


def seconds_of(state: Any, works: Sequence[Work]) -> list[tuple[Work, float, float]]:
    """Each of `works` with its roofline and with its cost in `state`."""
    (device,) = state.cluster.devices
    place = {work.key: index for index, work in enumerate(state.costs.works)}
    return [
        (w, Roofline().estimate(w, device).latency_s * device.slowdown, state.costs.latency_s["solo"][place[w.key]])
        for w in works
    ]


def test_a_stage_that_ran_stands_beside_its_estimate(tmp_path: Path) -> None:
    one = parse_cluster('[[device]]\nname = "solo"\ntarget = "x86-64-v2"\nthreads = 1\nslowdown = 3\n')
    store = ProfileStore(tmp_path)
    before = planned(one, LearnedCost([store]))
    seconds = before.plan.loads["solo"].compute_s / 3
    calls = dict(Counter(work.key for work in before.costs.works))
    given = 4 * 4 * 512  # bytes
    took = StageTime(
        calls, given, 1.25 * seconds, seconds, seconds, 20, False, 1.0, SCHEDULE_VERSION, tvm_version(), "", ""
    )
    store.add(one.devices[0].target, 1, took)
    state = planned(one, LearnedCost([store]))
    (facts,) = driver.explain(state, 1.0)["measured"]
    (stage,) = facts["stages"]
    assert stage["measured_s"] / stage["predicted_s"] == pytest.approx(1.25, rel=1e-3)
    assert stage["corrected_s"] == pytest.approx(stage["measured_s"], rel=1e-3)
    assert state.plan.loads["solo"].compute_s == pytest.approx(stage["measured_s"], rel=1e-3)
    assert (facts["measured"], facts["most_wrong"]) == (0, None)
