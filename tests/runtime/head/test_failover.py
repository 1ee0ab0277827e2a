"""A stream goes on when a device dies, hangs, or cannot be reached any more, and when it comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import tvmpipe
from tests.models import chain
from tests.runtime.cable import Cable, lasting_ports
from tests.runtime.processes import stage_host
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.errors import DeviceError, DeviceLostError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.pipeline import Pipeline

KEYS = ("alpha", "beta", "gamma")


class Checked:
    """Streams samples and checks every result; `at` calls something after so many of them."""

    def __init__(self, bundle: Bundle, count: int) -> None:
        self.samples = random_samples(bundle.manifest, count, seed=7)
        reference = Reference(chain().SerializeToString())
        self.wanted = [reference.expect(sample) for sample in self.samples]
        self.at: dict[int, Any] = {}
        self.slowest_s = 0.0

    def run(self, pipe: Pipeline) -> int:
        """How many results came, each once, in order and right."""
        good = 0
        before = time.monotonic()
        for result, want in zip(pipe.stream(self.samples), self.wanted, strict=True):
            now = time.monotonic()
            self.slowest_s, before = max(self.slowest_s, now - before), now
            assert compare(result, want).equal
            good += 1
            if good in self.at:
                self.at[good]()
        return good


def wait_until_whole(pipe: Pipeline) -> None:
    wait_until(
        lambda: not pipe.lost and set(pipe.devices) == set(KEYS),
        lambda: f"lost {pipe.lost}, running on {pipe.devices}",
    )


def test_killed_and_hanging_devices_are_done_without_and_used_again(spare_bundle: Bundle, tmp_path: Path) -> None:
    checked = Checked(spare_bundle, 400)
    with (
        local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster,
        tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8, failover=True) as pipe,
    ):

        def restart() -> None:
            assert pipe.lost == ("beta",)
            assert "beta" not in pipe.devices
            cluster.restart("beta")
            wait_until_whole(pipe)

        def resume() -> None:
            assert "gamma" not in pipe.devices
            cluster.resume("gamma")
            wait_until_whole(pipe)

        checked.at = {
            50: lambda: cluster.kill("beta"),
            150: restart,
            200: lambda: cluster.pause("gamma"),
            300: resume,
        }
        assert checked.run(pipe) == 400
    assert checked.slowest_s < 2 * PATIENCE_S


def test_why_a_host_ended_is_told(spare_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From here a link breaks; its agent knows that the system may have ended the host for want of memory."""
    checked = Checked(spare_bundle, 200)
    with (
        local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster,
        tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8, recover_s=PATIENCE_S) as pipe,
    ):
        agent = psutil.Process(cluster.process("beta").pid)
        checked.at = {50: lambda: stage_host(agent).kill()}
        assert checked.run(pipe) == 200, "without failover it is waited for"
    assert "device beta: the stage host ended (killed by SIGKILL, as Linux does to a process when memory" in caplog.text


def test_a_cut_link_is_done_without(spare_bundle: Bundle, cabled: tuple[LocalCluster, Cable]) -> None:
    cluster, cable = cabled
    checked = Checked(spare_bundle, 200)
    with tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8, failover=True) as pipe:

        def mend() -> None:
            assert "beta" not in pipe.devices
            cable.mend()
            wait_until_whole(pipe)

        checked.at = {50: cable.cut, 150: mend}
        assert checked.run(pipe) == 200
    assert checked.slowest_s < 2 * PATIENCE_S


def test_without_failover_a_cut_link_is_an_error_by_name(
    spare_bundle: Bundle, cabled: tuple[LocalCluster, Cable]
) -> None:
    cluster, cable = cabled
    checked = Checked(spare_bundle, 500)
    with tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8) as pipe:
        checked.at = {20: cable.cut}
        with pytest.raises(DeviceLostError, match=r"sample \d+ was not answered: device beta was lost, stage s1: the"):
            checked.run(pipe)
    cable.mend()
    with tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8, wait_s=PATIENCE_S) as pipe:
        pipe.run(checked.samples[0])


@pytest.fixture
def cabled(tmp_path: Path) -> Iterator[tuple[LocalCluster, Cable]]:
    """Agents of which beta's link goes through a cable."""
    (port,) = lasting_ports(1)
    cable = Cable(port)
    options = ("--link-port", str(port), "--advertise", f"127.0.0.1:{cable.port}")
    agents = [LocalAgent("alpha"), LocalAgent("beta", options=options), LocalAgent("gamma")]
    with local_cluster(agents, store=tmp_path) as cluster:
        yield cluster, cable
    cable.close()


def test_two_losses_at_once_wait_for_a_return(spare_bundle: Bundle, tmp_path: Path) -> None:
    checked = Checked(spare_bundle, 100)
    with (
        local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster,
        tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8, failover=True) as pipe,
    ):
        over = threading.Event()

        def bring_back() -> None:
            time.sleep(4.0)
            cluster.restart("beta")
            over.wait()

        def lose_two() -> None:
            cluster.kill("alpha")
            cluster.kill("beta")
            threading.Thread(target=bring_back, daemon=True).start()

        checked.at = {30: lose_two}
        assert checked.run(pipe) == 100
        assert pipe.lost == ("alpha",)
        over.set()


def test_giving_up_names_what_is_lost(spare_bundle: Bundle, tmp_path: Path) -> None:
    with (
        local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster,
        tvmpipe.connect(spare_bundle, cluster.tracker, inflight=8, failover=True, recover_s=2.0) as pipe,
    ):
        pipe.warm_up()
        for key in KEYS:
            cluster.kill(key)
        with pytest.raises(DeviceLostError, match="was lost"):
            for _ in range(50):
                pipe.run({"x": np.ones((4, 256), np.float32)})


def test_trackers_and_agents_come_back_by_themselves(chain_bundle: Bundle, tmp_path: Path) -> None:
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster:
        cluster.kill("tracker")
        cluster.restart("tracker")
        for _ in range(2):
            deadline = time.monotonic() + PATIENCE_S
            while True:
                try:
                    with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
                        pipe.run({"x": np.ones((4, 256), np.float32)})
                    break
                except DeviceError:
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
            cluster.kill("gamma")
            cluster.restart("gamma")
