"""`tvmpipe profile` as a process that is ended at any moment: nothing that was on disk is lost or measured again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.waiting import PATIENCE_S
from tvmpipe.process import die_with_parent
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.description.cluster import parse_cluster
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore

ONE = '[[device]]\nname = "gamma"\nthreads = 1\n'


class Profiler:
    """Starts `tvmpipe profile` on one model and device, again and again, into one store."""

    def __init__(self, model: Path, tracker: str, folder: Path) -> None:
        cluster = folder / "cluster.toml"
        cluster.write_text(ONE)
        self.folder = folder / "store"
        self.device = parse_cluster(ONE).devices[0]
        arguments = ["profile", str(model), "--cluster", str(cluster), "--tracker", tracker, "--passes", "1", "--json"]
        self.command = [sys.executable, "-m", "tvmpipe", *arguments, "--store", str(self.folder)]

    @property
    def path(self) -> Path:
        return ProfileStore(self.folder).path(self.device.target, 1)

    def rows(self) -> list[Measurement]:
        return ProfileStore(self.folder).read(self.device.target, 1)

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
        )

    def kill_when(self, ready: Callable[[], bool], wait_s: float = 0.0) -> None:
        """Start it, wait until something is so, and `wait_s` more, then end it at once."""
        with self.start() as process:
            deadline = time.monotonic() + 2 * PATIENCE_S
            try:
                while not ready():
                    assert process.poll() is None, "it ended by itself"
                    assert time.monotonic() < deadline
                    time.sleep(0.002)  # the core is the profiler's
                time.sleep(wait_s)
            finally:
                process.kill()
        assert process.returncode == -9, "it was done before it could be ended"

    def has_more_than(self, rows: int) -> bool:
        """Whether the file has more measurements than that, the last of them perhaps not on disk yet."""
        return self.path.exists() and self.path.read_bytes().count(b'"work"') > rows


def test_ended_at_any_moment(tmp_path: Path, branchy_path: Path, agents: LocalCluster) -> None:
    profiler = Profiler(branchy_path, agents.tracker, tmp_path)
    libraries = profiler.folder / "libraries"
    profiler.kill_when(lambda: any(libraries.glob("*/*.so")))  # while it compiles
    assert profiler.rows() == []
    kept: list[Measurement] = []
    for wait_s in (0.0, 0.15):
        # The file has grown: the row is being written, or, a little later, the next primitive is in hand.
        profiler.kill_when(partial(profiler.has_more_than, len(kept)), wait_s)
        rows = profiler.rows()
        assert rows[: len(kept)] == kept
        assert len(rows) > len(kept)
        kept = rows
    # A power cut also tears the line that was being written: that row is lost, and no other.
    profiler.path.write_bytes(profiler.path.read_bytes()[:-20])
    kept = kept[:-1]
    assert profiler.rows() == kept
    with profiler.start() as process:
        stdout, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    facts = json.loads(stdout)
    undisturbed = {row.key for row in kept if not row.busy}
    assert facts["known"] == len(undisturbed)
    assert facts["measured"] == facts["primitives"] - len(undisturbed)
    assert facts["left"] == 0
    rows = profiler.rows()
    assert rows[: len(kept)] == kept
    assert len({row.key for row in rows}) == facts["primitives"]
    # What was measured on the undisturbed device, before any of the kills, was never measured again.
    keys = [row.key for row in rows]
    for place, row in enumerate(rows):
        assert row.busy or row.key not in keys[place + 1 :]
