"""Explanations: what is left over adds up, what is unused says why, and changes are worth what planning again says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models import chain
from tests.passes.test_place import cluster_of
from tvmpipe.build import prepare
from tvmpipe.passes.explain import explain
from tvmpipe.passes.pipeline import PLAN, run_passes
from tvmpipe.targets.cluster import Cluster, parse_cluster


def explained(cluster: Cluster, **options: Any) -> tuple[Any, dict[str, Any]]:
    state = run_passes(prepare(chain(6, 512), cluster, time_limit_s=10, **options), PLAN)
    names: list[str] = []
    facts = explain(state, 10.0, lambda name, number, total: names.append(name))
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
    # The two are of one kind, so that only one of them is asked for; three devices share six layers evenly.
    assert set(changes) == {"one more d0", "twice the bandwidth", "devices in turn (--replicate)"}
    assert changes["one more d0"]["speedup"] == pytest.approx(1.5, abs=0.1)
    assert changes["devices in turn (--replicate)"]["speedup"] == pytest.approx(1, abs=0.05)


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
