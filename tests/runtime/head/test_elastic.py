"""Elastic pipelines: several losses at once, and plans that the bundle has not."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvmpipe
from tests.models import chain
from tests.runtime import manifests
from tests.runtime.threads import thread_pipeline
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.errors import DeviceLostError, InfeasibleError
from tvmpipe.manifest import DeviceEntry, FileEntry, PlanEntry, Predicted
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.replanner import Extension, Proposal, Request
from tvmpipe.runtime.head.sample import Result
from tvmpipe.runtime.head.state_machine import Settings

KEYS = ("alpha", "beta", "gamma", "delta", "epsilon")
CHAIN = manifests.chain("a", "b", "c")


class ChainReplanner:
    """Chains of one stage a device over all that are present; each device more takes a second off the period.

    `least` devices are needed.
    """

    def __init__(self, least: int = 1) -> None:
        self.least = least
        self.asked: list[Request] = []
        self.closed = False
        self.hold = threading.Event()
        self.hold.set()

    def describe(self, name: str, key: str, table: Mapping[str, Any]) -> DeviceEntry:
        return manifests.device(name)

    def propose(self, request: Request) -> Proposal:
        self.asked.append(request)
        self.hold.wait(PATIENCE_S)
        if len(request.present) < self.least:
            raise InfeasibleError(f"the model needs {self.least} devices")
        period_s = 10.0 - len(request.present)
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
