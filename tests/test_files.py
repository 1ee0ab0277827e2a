"""Folders that go with the process, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.waiting import wait_until
from tvmpipe.files import TemporaryFolder
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster

_MAKER = """
import sys, tempfile, time
from tvmpipe.files import TemporaryFolder
tempfile.tempdir = sys.argv[1]
folder = TemporaryFolder("tvmpipe-test-")
print(folder.name, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", _MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        theirs = Path(process.stdout.readline().strip())
        (theirs / "large").write_bytes(b"x")
        others = tmp_path / "tvmpipe-test-of-somebody-else"
        others.mkdir()
        link = tmp_path / "tvmpipe-test-link"
        link.symlink_to(theirs)
        with TemporaryFolder("tvmpipe-test-") as mine:
            assert theirs.exists(), "it is in use"
            assert Path(mine).exists()
        assert not Path(mine).exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with TemporaryFolder("tvmpipe-other-"):
            assert theirs.exists(), "it is of another kind"
        with TemporaryFolder("tvmpipe-test-"):
            assert not theirs.exists()
        assert others.exists(), "nobody says whose it is"
    finally:
        process.kill()
        process.communicate()


def test_nothing_is_left_of_a_killed_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # With a short name: the agent makes a socket there, and the kernel takes 107 characters.
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        monkeypatch.context() as patch,
        contextlib.ExitStack() as stack,
    ):
        temporary = Path(folder)
        patch.setenv("TMPDIR", folder)
        cluster = stack.enter_context(local_cluster([LocalAgent("alpha")], store=tmp_path / "store"))
        before = {path.name for path in temporary.iterdir()}
        assert any(name.startswith("tvmpipe-agent-") for name in before)
        os.killpg(cluster.process("alpha").pid, signal.SIGKILL)
        cluster.process("alpha").wait()
        cluster.restart("alpha")
        wait_until(lambda: not before & {path.name for path in temporary.iterdir()})


_MAKERS = """
import sys, tempfile
from pathlib import Path
from tvmpipe.files import TemporaryFolder
tempfile.tempdir = sys.argv[1]
for _ in range(150):
    with TemporaryFolder("tvmpipe-test-") as folder:
        (Path(folder) / "inside").mkdir()
"""


def test_a_folder_in_the_making_is_nobody_elses(tmp_path: Path) -> None:
    """Each of several processes removes what is abandoned while the others make folders."""
    makers = [
        subprocess.Popen([sys.executable, "-c", _MAKERS, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for maker in makers:
        _, complaint = maker.communicate(timeout=120)
        assert maker.returncode == 0, complaint
    assert list(tmp_path.iterdir()) == []
