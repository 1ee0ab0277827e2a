"""Elastic pipelines: several losses at once, and plans that the bundle has not."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tvmpipe
from tests.models import chain
from tests.runtime import manifests
from tests.runtime.threads import Compute, Device, add_one, thread_pipeline
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.errors import ClusterError, DeviceError, DeviceLostError, InfeasibleError, InputError
from tvmpipe.manifest import DeviceEntry, FileEntry, PlanEntry, Predicted
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.runtime.head.replanner import Extension, Proposal, Request
from tvmpipe.runtime.head.sample import Result
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.transport import deadlines

KEYS = ("alpha", "beta", "gamma", "delta", "epsilon")
CHAIN = manifests.chain("a", "b", "c")


class ChainReplanner:
    """Chains of one stage a device over all that are present; the period is two seconds over their number.

    `least` devices are needed.
    """

    def __init__(self, least: int = 1) -> None:
        self.least = least
        self.asked: list[Request] = []
        self.closed = False
        self.hold = threading.Event()
        self.hold.set()

    def knows(self, name: str) -> bool:
        return False

    def describe(self, name: str, key: str, table: Mapping[str, Any], facts: AgentFacts | None = None) -> DeviceEntry:
        if facts is None and not table:
            raise ClusterError(f"nothing is known of {name}")
        return manifests.device(name)

    def propose(self, request: Request) -> Proposal:
        self.asked.append(request)
        self.hold.wait(PATIENCE_S)
        if not request.present:
            raise InfeasibleError("no device is left")
        if len(request.present) < self.least:
            raise InfeasibleError(f"the model needs {self.least} devices")
        period_s = 2.0 / len(request.present)
        return Proposal(len(self.asked), period_s, period_s, 0.0, {})

    def make(self, proposal: Proposal) -> Extension:
        present = self.asked[proposal.number - 1].present
        plan: PlanEntry = manifests.linked(manifests.chain_plan(f"+{proposal.number}", present, 3), 3)
        figures = Predicted(period_s=proposal.period_s, latency_s=proposal.latency_s)
        devices = tuple(manifests.device(name) for name in present)
        return Extension(plan.model_copy(update={"predicted": figures}), devices, self)

    def path_of(self, entry: FileEntry) -> Path:
        return Path(entry.path)

    def close(self) -> None:
        self.closed = True
        self.hold.set()


def sample(value: float) -> Result:
    return {"x": np.full(manifests.SHAPE, value, np.float32)}


def value_of(result: Result) -> float:
    assert (result["y"] == result["y"].flat[0]).all()
    return float(result["y"].flat[0])


def test_samples_wait_while_a_plan_is_made_for_the_one_that_is_left() -> None:
    replanner = ChainReplanner()
    settings = Settings(max_batches=4, failover=True, elastic=True, recover_s=PATIENCE_S)
    with thread_pipeline(CHAIN, settings, replanner=replanner) as threads:
        assert value_of(threads.pipe.run(sample(1))) == 4.0, "each device of three adds one"
        replanner.hold.clear()
        threads.devices["a"].die()
        threads.devices["b"].die()
        futures = [threads.pipe.submit(sample(number)) for number in range(4)]
        wait_until(lambda: bool(replanner.asked))
        assert replanner.asked[0].present == ("c",), "who else is gone was found before"
        assert not any(future.done() for future in futures)
        replanner.hold.set()
        assert [value_of(future.result(PATIENCE_S)) for future in futures] == [1.0, 2.0, 3.0, 4.0]
        assert threads.pipe.devices == ("c",)
        assert [stage.device for stage in threads.pipe.manifest.plans[-1].stages] == ["c"]
    assert replanner.closed


def test_where_no_plan_fits_the_error_says_why() -> None:
    settings = Settings(failover=True, elastic=True, recover_s=2.0)
    with thread_pipeline(CHAIN, settings, replanner=ChainReplanner(least=2)) as threads:
        threads.pipe.run(sample(1))
        threads.devices["a"].die()
        threads.devices["b"].die()
        why = "within 2 s, as there is no plan for the devices that are left: the model needs 2 devices"
        with pytest.raises(DeviceLostError, match=why):
            threads.pipe.run(sample(1))


ELASTIC = Settings(max_batches=4, failover=True, elastic=True, recover_s=PATIENCE_S)


def wait_for(pipe: Pipeline, *devices: str) -> None:
    """Until a plan runs on exactly these; samples go through it meanwhile."""

    def there() -> bool:
        pipe.run(sample(0))
        return set(pipe.devices) == set(devices)

    wait_until(there, lambda: f"runs on {pipe.devices}")


def test_devices_are_added_and_removed_while_samples_stream() -> None:
    told: list[str] = []
    replanner = ChainReplanner()
    with thread_pipeline(CHAIN, ELASTIC, replanner=replanner, told=told.append) as threads:
        pipe = threads.pipe
        threads.devices["d"] = Device("d")
        with pytest.raises(DeviceError, match="no device with key 'e'"):
            pipe.add_device("e")
        stop = threading.Event()

        def endless() -> Iterator[Result]:
            number = 0
            while not stop.is_set():
                yield sample(number)
                number += 1

        found: list[float] = []
        reader = threading.Thread(target=lambda: found.extend(value_of(one) for one in pipe.stream(endless())))
        reader.start()
        pipe.add_device("d")
        wait_until(lambda: set(pipe.devices) == set("abcd"), lambda: f"runs on {pipe.devices}, {told}")
        pipe.remove_device("a", timeout_s=PATIENCE_S)
        wait_until(lambda: set(pipe.devices) == set("bcd"), lambda: f"runs on {pipe.devices}, {told}")
        assert threads.deployer.given_back == ["a"]
        pipe.remove_device("b", timeout_s=PATIENCE_S)
        pipe.remove_device("c", timeout_s=PATIENCE_S)
        with pytest.raises(InfeasibleError, match="device d is needed: no other device is left"):
            pipe.remove_device("d", timeout_s=PATIENCE_S)
        with pytest.raises(InputError, match="'z' is no device of this pipeline; its devices are a, b, c, d"):
            pipe.remove_device("z")
        pipe.add_device("a")
        wait_until(lambda: set(pipe.devices) == set("ad"), lambda: f"runs on {pipe.devices}, {told}")
        stop.set()
        reader.join(PATIENCE_S)
    added = [value - number for number, value in enumerate(found)]
    assert set(added) <= {1.0, 2.0, 3.0, 4.0}, "none is lost, doubled or out of order"
    assert {1.0, 3.0} <= set(added), "of one device and of three"


def test_devices_that_register_join_by_themselves() -> None:
    with thread_pipeline(CHAIN, ELASTIC, replanner=ChainReplanner()) as threads:
        threads.pipe.watch_tracker()
        threads.devices["d"] = Device("d")
        wait_for(threads.pipe, *"abcd")
        threads.devices["d"].die()
        wait_for(threads.pipe, *"abc")


def test_a_device_that_has_become_slow_has_plans_made_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "DRIFT_S", 2.0)
    monkeypatch.setattr(deadlines, "MEASURE_S", 0.1)
    timed = [
        plan.model_copy(
            update={
                "stages": tuple(one.model_copy(update={"predicted_compute_s": 0.01}) for one in plan.stages),
                "predicted": Predicted(period_s=0.01, latency_s=0.03),
            }
        )
        for plan in CHAIN.plans
    ]
    replanner = ChainReplanner()
    told: list[str] = []
    made = CHAIN.model_copy(update={"plans": tuple(timed)})
    with thread_pipeline(made, ELASTIC, replanner=replanner, told=told.append) as threads:

        def taking(seconds: float) -> Compute:
            def compute(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
                time.sleep(seconds)
                return add_one(stage, inputs)

            return compute

        for device in threads.devices.values():
            device.compute = taking(0.01)
        threads.devices["b"].compute = taking(0.05)
        for result in threads.pipe.stream(sample(number) for number in itertools.count()):
            value_of(result)
            if replanner.asked:
                break
        speeds = replanner.asked[0].speeds
        assert 4 < speeds.devices["b"] < 8
        assert any("b takes" in sentence for sentence in told)
        wait_until(lambda: any("it does not pay" in sentence for sentence in told), lambda: str(told))


def test_only_elastic_pipelines_change() -> None:
    with thread_pipeline(CHAIN, Settings()) as threads:
        for call in (threads.pipe.add_device, threads.pipe.remove_device):
            with pytest.raises(InputError, match="elastic pipelines only: compile with --elastic"):
                call("a")
        with pytest.raises(InputError, match="elastic pipelines only"):
            threads.pipe.watch_tracker()


@pytest.fixture(scope="module")
def elastic_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Five layers over five devices, slow on paper, so that the best plan uses all."""
    cluster = tmp_path_factory.mktemp("elastic") / "cluster.toml"
    cluster.write_text("".join(f'[[device]]\nname = "{key}"\nthreads = 1\nslowdown = 200\n' for key in KEYS))
    bundle = tvmpipe.build(chain(5), cluster, elastic=True, failover=True)
    assert set(bundle.manifest.plan.devices) == set(KEYS)
    return bundle


def test_three_devices_of_five_lost_at_once(elastic_bundle: Bundle, tmp_path: Path) -> None:
    """They are done without, and used again when they are back."""
    samples = random_samples(elastic_bundle.manifest, 300, seed=7)
    reference = Reference(chain(5).SerializeToString())
    wanted = [reference.expect(sample) for sample in samples]
    slowest_s = 0.0
    with (
        local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster,
        tvmpipe.connect(elastic_bundle, cluster.tracker, replanner=tvmpipe.Replanner(elastic_bundle)) as pipe,
    ):
        before = time.monotonic()
        for number, (result, want) in enumerate(zip(pipe.stream(samples), wanted, strict=True)):
            now = time.monotonic()
            slowest_s, before = max(slowest_s, now - before), now
            assert compare(result, want).equal
            if number == 100:
                for key in KEYS[:3]:
                    cluster.kill(key)
            if number == 150:
                assert set(pipe.devices) <= set(KEYS[3:])
                for key in KEYS[:3]:
                    cluster.restart(key)
                wait_until(lambda: set(pipe.devices) == set(KEYS), lambda: f"runs on {pipe.devices}")
                before = time.monotonic()
    assert number == 299
    assert slowest_s < PATIENCE_S


def test_agents_that_register_are_planned_with_and_given_back(tmp_path: Path) -> None:
    """A bundle for one slow device: two more are found at the tracker, and the first one leaves."""
    cluster_file = tmp_path / "cluster.toml"
    cluster_file.write_text('[[device]]\nname = "alpha"\nthreads = 1\nslowdown = 50\n')
    bundle = tvmpipe.build(chain(6, width=1024), cluster_file, elastic=True)
    samples = random_samples(bundle.manifest, 4, seed=7)
    reference = Reference(chain(6, width=1024).SerializeToString())
    wanted = [reference.expect(sample) for sample in samples]
    slow = ("--slowdown", "50", "--threads", "1", "--like", "native")
    told: list[str] = []
    with (
        local_cluster([LocalAgent(key, options=slow) for key in KEYS[:3]], store=tmp_path) as cluster,
        tvmpipe.connect(bundle, cluster.tracker, replanner=tvmpipe.Replanner(bundle), on_decision=told.append) as pipe,
    ):

        def run_on(*devices: str) -> bool:
            for sample, want in zip(samples, wanted, strict=True):
                assert compare(pipe.run(sample), want).equal
            return set(pipe.devices) == set(devices)

        assert run_on("alpha")
        pipe.watch_tracker()
        wait_until(lambda: run_on("alpha", "beta", "gamma"), lambda: f"runs on {pipe.devices}, {told}")
        pipe.remove_device("alpha", timeout_s=PATIENCE_S)
        assert run_on("beta", "gamma")
        with tvmpipe.connect(bundle, cluster.tracker) as other:
            assert other.devices == ("alpha",), "it is free for others"
