"""Agents that take samples in turn: right answers in order, each agent its share, and going on without one."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tvmpipe
from tests.runtime.head.test_failover import Checked
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceLostError
from tvmpipe.manifest import HEAD
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.pipeline import Pipeline

KEYS = ("alpha", "beta", "gamma", "delta")
OTHER = "x86-64-v2" if platform.machine() == "x86_64" else "pi4"  # what every such machine runs, besides "native"

Build = Callable[..., Bundle]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    store = tmp_path_factory.mktemp("store")
    with local_cluster([LocalAgent(key) for key in KEYS], store=store) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def build(
    chain_path: Path, spread_plan: Callable[[Path, list[str]], Path], tmp_path_factory: pytest.TempPathFactory
) -> Build:
    """Compiles `chain` for four devices, of which gamma is of another kind, with its six layers on these places."""
    cluster = tmp_path_factory.mktemp("four") / "cluster.toml"
    targets = {"gamma": OTHER}
    cluster.write_text(
        "".join(f'[[device]]\nname = "{k}"\nthreads = 1\ntarget = "{targets.get(k, "native")}"\n' for k in KEYS)
    )

    def work(*places: str, failover: bool = False) -> Bundle:
        return tvmpipe.build(chain_path, cluster, plan=spread_plan(chain_path, list(places)), failover=failover)

    return work


@pytest.fixture(scope="module")
def middle(build: Build) -> Bundle:
    """A middle stage in turn on two devices that run different code, and plans for the loss of each device."""
    return build("alpha", "alpha", "[beta, gamma]", "[beta, gamma]", "delta", "delta", failover=True)


def samples_of(pipe: Pipeline, stage: str) -> int:
    """How many samples a stage has computed, on all of its devices."""
    return sum(count.samples for name, count in pipe.counts().items() if name.split("@")[0] == stage)


def batches_of(pipe: Pipeline) -> dict[str, set[int]]:
    """Stage -> the batches that it has computed, as the trace has them."""
    found: dict[str, set[int]] = {}
    for event in pipe.trace():
        if event["ph"] == "X" and event["cat"] == "compute":
            stage, batch = event["name"].split(" #")
            assert int(batch) not in found.setdefault(stage, set()), "computed twice"
            found[stage].add(int(batch))
    return found


def test_a_middle_stage_in_turn(middle: Bundle, four: LocalCluster) -> None:
    checked = Checked(middle, 60)
    with tvmpipe.connect(middle, four.tracker, inflight=8, batch=1, trace=True) as pipe:
        pipe.warm_up()
        assert checked.run(pipe) == 60
        warm = {0, 1}  # a batch for beta and one for gamma
        odd = set(range(3, 62, 2))
        even = set(range(2, 62, 2))
        wanted = {"s0": odd | even, "s1@beta": even, "s1@gamma": odd, "s2": odd | even}
        wait_until(lambda: {stage: batches - warm for stage, batches in batches_of(pipe).items()} == wanted)
        counts = pipe.counts()
    for name in ("s1@beta", "s1@gamma"):
        assert counts[name].samples == pytest.approx(30, abs=1), "but for one of the warm-up"


def test_first_and_last_stages_in_turn(build: Build, four: LocalCluster) -> None:
    """Two lanes of two devices, in batches of two samples."""
    bundle = build(*["[alpha, gamma]"] * 3, *["[beta, delta]"] * 3)
    checked = Checked(bundle, 60)
    with tvmpipe.connect(bundle, four.tracker, batch=2, trace=True) as pipe:
        assert checked.run(pipe) == 60
        wait_until(lambda: samples_of(pipe, "s0") == samples_of(pipe, "s1") == 60)
        counts = {name: count.samples for name, count in pipe.counts().items()}
        done = batches_of(pipe)
    assert {link.sender: link.receiver for link in bundle.manifest.plan.links if link.sender != HEAD} == {
        "alpha": "beta",
        "gamma": "delta",
        "beta": HEAD,
        "delta": HEAD,
    }
    for stage in bundle.manifest.plan.stages:
        assert {number % 2 for number in done[stage.name]} == {stage.turn.place}
        assert counts[stage.name] == pytest.approx(30, abs=10), "the last batches may not be full"


def test_one_that_is_lost_is_done_without_and_takes_its_turn_again(middle: Bundle, four: LocalCluster) -> None:
    checked = Checked(middle, 240)
    with tvmpipe.connect(middle, four.tracker, inflight=8, batch=1, failover=True) as pipe:

        def restart() -> None:
            assert pipe.lost == ("gamma",)
            assert "gamma" not in pipe.devices
            four.restart("gamma")
            wait_until(lambda: not pipe.lost and set(pipe.devices) == set(KEYS))
            pipe.reset_counts()

        checked.at = {80: lambda: four.kill("gamma"), 160: restart}
        assert checked.run(pipe) == 240
        # What was under way at the restart may have been answered before it.
        wait_until(lambda: min(pipe.counts()[name].samples for name in ("s1@beta", "s1@gamma")) >= 30)
    assert checked.slowest_s < PATIENCE_S


def test_without_failover_a_lost_one_is_an_error_by_name(middle: Bundle, four: LocalCluster) -> None:
    checked = Checked(middle, 500)
    with tvmpipe.connect(middle, four.tracker, inflight=8, wait_s=15) as pipe:
        checked.at = {20: lambda: four.kill("gamma")}
        with pytest.raises(DeviceLostError, match=re.escape("device gamma was lost, stage s1@gamma: ")):
            checked.run(pipe)
