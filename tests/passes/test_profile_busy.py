"""A device with a load on its only core: what is measured there is marked, and measured again later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.models import branchy
from tvmpipe.passes.profile import profile
from tvmpipe.passes.subjects import Subject, subjects_of
from tvmpipe.runtime.local import LocalAgent, local_cluster
from tvmpipe.runtime.process import die_with_parent
from tvmpipe.targets.cluster import parse_cluster
from tvmpipe.targets.profile_store import ProfileStore
from tvmpipe.targets.timing import Patience

CLUSTER = parse_cluster('[[device]]\nname = "lonely"\nthreads = 1\n')
PATIENCE = Patience(attempts=2, pause_s=0.05)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs to bind processes to a core")


@contextmanager
def load(core: int) -> Iterator[None]:
    """A process that keeps one core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=die_with_parent) as burner:
        try:
            psutil.Process(burner.pid).cpu_affinity([core])
            yield
        finally:
            burner.kill()


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return subjects_of(branchy(), "branchy")[:4]


def test_a_load_on_the_core_is_noticed(tmp_path: Path, subjects: list[Subject]) -> None:
    device = CLUSTER.devices[0]
    store = ProfileStore(tmp_path / "store")
    with local_cluster([LocalAgent(device.key)], store=tmp_path) as local:
        agent = psutil.Process(local.process(device.key).pid)
        core = agent.cpu_affinity()[0]
        for process in (agent, *agent.children(recursive=True)):
            process.cpu_affinity([core])
        # What the device reaches undisturbed is known from then on.
        profile(subjects[:1], CLUSTER, local.tracker, store, patience=PATIENCE)
        before = len(store.read(device.target, 1))
        with load(core):
            loaded = profile(subjects, CLUSTER, local.tracker, store, again=True, patience=PATIENCE)
        assert loaded.measured == len(subjects)
        rows = store.read(device.target, 1)[before:]
        assert [row.work for row in rows] == [subject.work for subject in subjects]
        assert sum(row.busy for row in rows) >= len(subjects) - 1
        assert loaded.busy == sum(row.busy for row in rows)
        # Without the load they are measured again, and marked ones do not count any more.
        unknown = len(subjects) - len({row.key for row in store.read(device.target, 1) if not row.busy})
        again = profile(subjects, CLUSTER, local.tracker, store, patience=PATIENCE)
        assert again.measured == unknown >= len(subjects) - 2
