"""What `tvmpipe top` knows of each device, and that none can hold it up."""

from __future__ import annotations

import time

import numpy as np

import tvmpipe
from tests.runtime.fakes import mute, registered, unused_port
from tests.waiting import no_hang
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.tools.cluster_status import ClusterStatus
from tvmpipe.runtime.transport.tracker import Tracker


def test_devices_that_work(chain_bundle: Bundle, agents: LocalCluster) -> None:
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe, ClusterStatus(agents.tracker) as cluster_status:
        for _ in range(30):
            pipe.run({"x": np.ones((4, 256), np.float32)})
        time.sleep(2.2)  # two heartbeats that tell the agent
        reports = cluster_status.poll()
        again = cluster_status.poll()
    assert [report.key for report in reports] == ["alpha", "beta", "gamma"]
    assert {report.kind for report in reports} == {"agent"}
    assert {report.kind for report in again} <= {"agent", "busy"}
    names = {stage.name for stage in chain_bundle.manifest.plan.stages}
    told = [report.facts for report in reports if report.facts is not None]
    statuses = [facts.status for facts in told if facts.status is not None]
    assert len(statuses) == len(reports)
    assert {name for status in statuses for name in status.counts} == names
    assert all(count[0] == 30 for status in statuses for count in status.counts.values())
    assert all(status.age_s < 3 for status in statuses)
    assert all("process" in (facts.held_by or "") for facts in told)
    assert all(rate >= 0 for facts in told for rate in facts.samples_per_s.values())
    with ClusterStatus(agents.tracker) as cluster_status:
        assert {report.facts and report.facts.held_by for report in cluster_status.poll()} == {None}


def test_devices_that_do_not_answer_hold_nobody_up(agents: LocalCluster) -> None:
    with (
        mute() as port,
        registered(agents.tracker, "mute", port),
        registered(agents.tracker, "ghost", unused_port()),
        registered(agents.tracker, "taken", unused_port()),
        ClusterStatus(agents.tracker, timeout_s=1.5) as cluster_status,
    ):
        with Tracker(agents.tracker) as tracker:
            tracker.request("taken", 1.0)
        wanted = {**dict.fromkeys(("alpha", "beta", "gamma"), "agent"), "mute": "silent", "ghost": "silent"}
        seen = []
        for _ in range(8):
            with no_hang():
                seen.append({report.key: report.kind for report in cluster_status.poll()})
            if seen[-3:] == [{**wanted, "taken": "busy"}] * 3:
                break
        else:  # on a machine with more to do than it can, any may be late, but not all the time
            raise AssertionError(seen)
