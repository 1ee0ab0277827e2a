"""A plan gets ready beside another that goes on, and takes its place between two samples."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq

from tests.models import chain
from tests.runtime.processes import agent_facts
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import compare
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.deployer import Deployer
from tvmpipe.runtime.head.input_sender import InputSender
from tvmpipe.runtime.head.opened import HeadEnd, NoRoomError, Opened, OpenError
from tvmpipe.runtime.head.options import ConnectOptions, Limits
from tvmpipe.runtime.head.telemetry import Telemetry
from tvmpipe.runtime.transport import wire
from tvmpipe.runtime.transport.sockets import Sockets

KEYS = ("alpha", "beta", "gamma")


class Head:
    """What a head does of it: answers the devices, and runs samples one by one through whichever plan it is told."""

    def __init__(self, bundle: Bundle, tracker: str) -> None:
        manifest = bundle.manifest
        self.telemetry = Telemetry(manifest)
        self.samples = random_samples(manifest, 4, seed=3)
        reference = Reference(chain().SerializeToString())
        self._wanted = [reference.expect(sample) for sample in self.samples]
        self._manifest = manifest
        self._sockets = Sockets()
        self._results, results_port = self._sockets.pull("127.0.0.1")
        self._statuses, status_port = self._sockets.router("127.0.0.1")
        self._input_sender = InputSender(manifest, self._sockets)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()
        limits = Limits(connect_s=10.0, wait_s=PATIENCE_S, timeout_s=PATIENCE_S)
        self.end = HeadEnd(results_port, status_port, max_batches=4, heard=self.telemetry.heard)
        options = ConnectOptions(failover=True, limits=limits)
        self.deployer = Deployer(manifest, bundle, tracker, None, options)
        self.number = 0

    def _answer(self) -> None:
        while not self._stopped.is_set():
            if self._statuses.poll(50):
                identity, message = self._statuses.recv_multipart()
                status = Status.model_validate_json(message)
                if status.session in self.deployer.sessions:
                    answer = {"sent_s": status.sent_s, "head_s": time.time(), "open": False}
                    self._statuses.send_multipart([identity, json.dumps(answer).encode()], zmq.NOBLOCK)
                    self.telemetry.take(status, current=False)

    def go_to(self, opened: Opened) -> None:
        self._input_sender.disconnect()
        self._input_sender.connect(opened)

    def run(self, opened: Opened) -> None:
        """A sample through a plan, and whether its result is right."""
        place = self.number % len(self.samples)
        self._input_sender.send(self.number, [self.samples[place]], plain=False)
        assert self._results.poll(int(PATIENCE_S * 1e3))
        frames = wire.receive(self._results)
        assert wire.session_of(frames).hex() == opened.session
        batch = wire.unpack(frames, 1 << 20)
        assert batch.number == self.number
        values = {name: np.array(batch.samples[0][value]) for name, value in self._manifest.model_outputs.items()}
        found = compare(values, self._wanted[place])
        assert found.equal, found.sentence
        self.number += 1

    def close(self) -> None:
        self.deployer.close()
        self._input_sender.disconnect()
        self._stopped.set()
        self._thread.join(PATIENCE_S)
        self._sockets.close()


@contextmanager
def head(bundle: Bundle, cluster: LocalCluster) -> Iterator[Head]:
    made = Head(bundle, cluster.tracker)
    try:
        yield made
    finally:
        made.close()


def test_a_plan_gets_ready_beside_the_one_that_runs(spare_bundle: Bundle, agents: LocalCluster) -> None:
    whole = spare_bundle.manifest.plans[0]
    without_beta = next(plan for plan in spare_bundle.manifest.plans if plan.lost == "beta")
    with head(spare_bundle, agents) as one:
        before = one.deployer.open(without_beta, one.end)
        one.go_to(before)
        one.run(before)
        prepared: list[Opened] = []
        thread = threading.Thread(target=lambda: prepared.append(one.deployer.prepare(whole, one.end)), daemon=True)
        thread.start()
        while thread.is_alive():
            one.run(before)  # right through it
        (after,) = prepared
        for _ in range(8):
            one.run(before)
        assert one.deployer.sessions == {before.session, after.session}
        assert set(before.links.values()).isdisjoint(after.links.values())
        one.go_to(after)
        one.run(after)
        one.deployer.activate(after)
        for _ in range(8):
            one.run(after)
        assert one.deployer.sessions == {after.session}
        assert [agent_facts(agents, key)["host"] for key in KEYS] == ["ready"] * 3
        # What comes next finds the ports changed over: without a change over, and with one.
        again = one.deployer.open(without_beta, one.end)
        one.go_to(again)
        one.run(again)
        last = one.deployer.prepare(whole, one.end)
        one.deployer.discard(last)
        assert one.deployer.sessions == {again.session}
        one.run(again)
    assert [agent_facts(agents, key)["held_by"] for key in KEYS] == [None] * 3


def test_opening_another_plan_gives_up_what_is_prepared(spare_bundle: Bundle, agents: LocalCluster) -> None:
    whole = spare_bundle.manifest.plans[0]
    without_beta = next(plan for plan in spare_bundle.manifest.plans if plan.lost == "beta")
    with head(spare_bundle, agents) as one:
        one.deployer.open(without_beta, one.end)
        failed: list[OpenError] = []

        def prepare() -> None:
            with pytest.raises(OpenError) as caught:
                one.deployer.prepare(whole, one.end)
            failed.append(caught.value)

        thread = threading.Thread(target=prepare, daemon=True)
        thread.start()
        wait_until(lambda: len(one.deployer.sessions) == 2)
        without_gamma = next(plan for plan in spare_bundle.manifest.plans if plan.lost == "gamma")
        opened = one.deployer.open(without_gamma, one.end)
        thread.join(PATIENCE_S)
        assert failed
        one.go_to(opened)
        one.run(opened)
        assert one.deployer.sessions == {opened.session}


def test_a_device_without_room_for_both_says_so(spare_bundle: Bundle, tmp_path: Path) -> None:
    """The running plan goes on; the other can still be opened in its place."""
    without_beta = next(plan for plan in spare_bundle.manifest.plans if plan.lost == "beta")
    whole = spare_bundle.manifest.plans[0]
    need = max(
        sum(stage.memory_bytes for stage in plan.stages if stage.device == "alpha") for plan in (whole, without_beta)
    )
    small = [LocalAgent("alpha", memory_bytes=need), LocalAgent("beta"), LocalAgent("gamma")]
    with local_cluster(small, store=tmp_path) as cluster, head(spare_bundle, cluster) as one:
        before = one.deployer.open(without_beta, one.end)
        one.go_to(before)
        with pytest.raises(NoRoomError, match=r"device alpha cannot host another plan beside .* both plans need"):
            one.deployer.prepare(whole, one.end)
        one.run(before)
        after = one.deployer.open(whole, one.end)
        one.go_to(after)
        one.run(after)


def test_an_agent_with_one_port_says_so(spare_bundle: Bundle, tmp_path: Path) -> None:
    """Others reach it where it says, and nowhere else."""
    agents = [
        LocalAgent("alpha", options=("--link-port", "29750", "--advertise", "127.0.0.1:29750")),
        LocalAgent("beta"),
        LocalAgent("gamma"),
    ]
    without_beta = next(plan for plan in spare_bundle.manifest.plans if plan.lost == "beta")
    with local_cluster(agents, store=tmp_path) as cluster, head(spare_bundle, cluster) as one:
        before = one.deployer.open(without_beta, one.end)
        with pytest.raises(NoRoomError, match="the agent on device alpha has one link port only"):
            one.deployer.prepare(spare_bundle.manifest.plans[0], one.end)
        one.go_to(before)
        one.run(before)
