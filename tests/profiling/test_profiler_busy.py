"""A device with a load on its only core: what is measured there is marked, and measured again later."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.models import branchy
from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.passes.workloads import PrimitiveWorkload, workloads_of
from tvmpipe.process import die_with_parent
from tvmpipe.profiling.peak import measure_peak_flops
from tvmpipe.profiling.profiler import profile
from tvmpipe.profiling.timing import Patience
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.targets.description.cluster import Device, parse_cluster
from tvmpipe.targets.store.profile_store import DeviceFacts, ProfileStore

CLUSTER = parse_cluster('[[device]]\nname = "lonely"\nthreads = 1\n')
PATIENCE = Patience(attempts=2, pause_s=0.05)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs to bind processes to a core")


@contextmanager
def load(core: int) -> Iterator[None]:
    """A process that keeps one core busy."""
    code = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], preexec_fn=die_with_parent) as burner:
        try:
            yield
        finally:
            burner.kill()


@pytest.fixture(scope="module")
def workloads() -> list[PrimitiveWorkload]:
    return workloads_of(branchy(), "branchy")[:4]


def undisturbed(device: Device) -> DeviceFacts:
    """What this machine's cores reach at best, whatever else it is doing: the fastest of several tries."""
    peak = max(measure_peak_flops(device.target, 1) for _ in range(10))
    return DeviceFacts(peak, 1e10, device.key, "2026-01-01T00:00:00Z")


def test_a_load_on_the_core_is_noticed(tmp_path: Path, workloads: list[PrimitiveWorkload]) -> None:
    device = CLUSTER.devices[0]
    store = ProfileStore(tmp_path / "store")
    cores = os.sched_getaffinity(0)
    core = min(cores)
    with ExitStack() as stack:
        os.sched_setaffinity(0, {core})  # for what is started from here on
        try:
            local = stack.enter_context(local_cluster([LocalAgent(device.key)], store=tmp_path))
        finally:
            os.sched_setaffinity(0, cores)
        store.add(device.target, 1, undisturbed(device))
        with load(core):
            loaded = profile(workloads, CLUSTER, local.tracker, store, compile_function, patience=PATIENCE)
        assert loaded.measured == len(workloads)
        rows = store.read(device.target, 1)
        assert [row.work for row in rows] == [workload.work for workload in workloads]
        assert sum(row.busy for row in rows) >= len(workloads) - 1
        assert loaded.busy == sum(row.busy for row in rows)
        # Without the load they are measured again, and marked ones do not count any more.
        unknown = len(workloads) - len({row.key for row in store.read(device.target, 1) if not row.busy})
        again = profile(workloads, CLUSTER, local.tracker, store, compile_function, patience=PATIENCE)
        assert again.measured == unknown >= len(workloads) - 1
