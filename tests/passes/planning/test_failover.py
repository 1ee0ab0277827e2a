"""Plans for the loss of a device: they run without it, compute the same, and share what they can."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

import tvmpipe
from tests.models import chain
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.passes import driver
from tvmpipe.passes.graph.weights import group_by_readers
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import Cluster, parse_cluster

PINS = {"00[01].*": "d0", "00[23].*": "d1", "00[45].*": "d2"}


def cluster_of(memory: str) -> Cluster:
    text = "".join(f'[[device]]\nname = "d{i}"\nthreads = 1\nmemory = "{memory}"\n' for i in range(3))
    return parse_cluster(text + '[[link]]\nbetween = ["d0", "d1"]\nbandwidth = "1MB/s"\n')


@pytest.fixture(scope="module")
def bundle(chain_path: Path) -> Bundle:
    """`chain` on three devices of which any two hold it, one with a slow link to the next."""
    return tvmpipe.build(chain_path, cluster_of("900KiB"), pins=PINS, failover=True, compress="int8")


def check_plans(bundle: Bundle, model: Path) -> None:
    reference = Reference(model, 1)
    samples = random_samples(bundle.manifest, 2, seed=3)
    for plan in bundle.manifest.plans:
        assert plan.lost not in plan.devices
        assert all(plan.lost not in (link.sender, link.receiver) for link in plan.links)
        assert plan.inflight >= 2
        with run_in_process(bundle, plan) as pipe:
            for sample, result in zip(samples, pipe.stream(samples), strict=True):
                assert reference.compare(result, sample).equal


def test_every_plan_computes_the_same(bundle: Bundle, chain_path: Path) -> None:
    assert [plan.lost for plan in bundle.manifest.plans] == [None, "d0", "d1", "d2"]
    assert bundle.manifest.plan.devices == ("d0", "d1", "d2")
    assert {device.name for device in bundle.manifest.devices} == {"d0", "d1", "d2"}
    check_plans(bundle, chain_path)


def test_plans_of_a_model_with_branches(
    branchy_path: Path, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path]
) -> None:
    """A plan file does not hold for a loss: the rest is placed anew."""
    plan = spread_plan(branchy_path, ["alpha", "beta"])
    bundle = tvmpipe.build(branchy_path, cluster_path, plan=plan, failover=True)
    assert [plan.lost for plan in bundle.manifest.plans] == [None, "alpha", "beta"]
    check_plans(bundle, branchy_path)


def test_names_tell_plans_apart_and_equal_stages_share_a_library(bundle: Bundle) -> None:
    stages = [stage for plan in bundle.manifest.plans for stage in plan.stages]
    assert len({stage.name for stage in stages}) == len(stages)
    # d1 and d2 keep their pinned layers and hold three each, so that the first two layers make a stage more.
    assert [stage.name for stage in bundle.manifest.plans[1].stages] == ["d0-s0", "d0-s1", "d0-s2"]
    # Layers are equal: what differs is how many there are in a stage.
    assert {stage.library.path for stage in bundle.manifest.plan.stages} == {"stages/s0.so"}
    assert len({stage.library.path for stage in stages}) == len({stage.weight_bytes for stage in stages})


def test_weights_are_stored_once(bundle: Bundle) -> None:
    stages = [stage for plan in bundle.manifest.plans for stage in plan.stages]
    files = sorted((bundle.root / "weights").iterdir())
    seen: dict[str, int] = {}
    headers = 0
    for path in files:
        headers += 8 + int.from_bytes(path.read_bytes()[:8], "little")
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                assert name not in seen
                seen[name] = file.get_tensor(name).nbytes
    assert sum(path.stat().st_size for path in files) == sum(seen.values()) + headers
    assert sum(seen.values()) == 6 * 256 * 256 * 4
    for stage in stages:
        assert stage.weight_bytes == sum(seen[name] for name in stage.weight_names)
        inside = set()
        for entry in stage.weight_files:
            with safe_open(bundle.path_of(entry), framework="numpy") as file:
                names = set(file.keys())
            assert names <= set(stage.weight_names), "a stage gets no weight that it does not need"
            inside |= names
        assert inside == set(stage.weight_names)


def test_groups_travel_together() -> None:
    groups = group_by_readers({"s0": ["a", "b", "c"], "s1": ["d", "c"], "x-s0": ["b", "a", "c", "d"]})
    assert groups == [("a", "b"), ("c",), ("d",)]


def test_the_slow_link_of_the_bundle_is_encoded(bundle: Bundle) -> None:
    plan = bundle.manifest.plan
    slow = next(link for link in plan.links if (link.sender, link.receiver) == ("d0", "d1"))
    assert (slow.encoding, slow.size_bytes) == ("int8", 4 * 256)
    assert plan.predicted.period_s == pytest.approx(1.024e-3)
    assert {link.encoding for link in plan.links} == {"none", "int8"}


def test_bundles_with_spare_plans_are_reproducible(bundle: Bundle, chain_path: Path) -> None:
    again = tvmpipe.build(chain_path, cluster_of("900KiB"), pins=PINS, failover=True, compress="int8")
    assert again.manifest == bundle.manifest


def test_pins_hold_on_what_is_left() -> None:
    state = driver.plan(driver.front(chain()), cluster_of("900KiB"), BuildOptions(pins=PINS, failover=True))
    assert [spare.lost for spare in state.spares] == ["d0", "d1", "d2"]
    for spare in state.spares:
        kept = [device for device in ("d0", "d1", "d2") if device != spare.lost]
        for number, name in enumerate(spare.plan.placement):
            wanted = f"d{number // 2}"
            assert spare.plan.placement[name] == (wanted,) or wanted not in kept


def test_a_loss_that_nothing_survives_is_a_note() -> None:
    state = driver.plan(driver.front(chain()), cluster_of("700KiB"), BuildOptions(failover=True))
    assert state.spares == ()
    assert sum("the model cannot run: no placement fits" in note for note in state.notes) == 3
    alone = driver.plan(driver.front(chain()), cluster_of("4MiB").only("d1"), BuildOptions(failover=True))
    assert "without d1 no device is left" in alone.notes


def test_the_report_names_the_spare_plans(bundle: Bundle) -> None:
    facts = json.loads((bundle.root / "report.json").read_text())
    assert [spare["lost"] for spare in facts["spares"]] == ["d0", "d1", "d2"]
    assert facts["bottleneck"] == {"ends": ["d0", "d1"], "seconds": bundle.manifest.plan.predicted.period_s}
    page = (bundle.root / "report.html").read_text()
    assert "If a device is lost" in page
    assert "d0 -&gt; d1" in page
