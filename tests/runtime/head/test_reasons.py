"""What goes wrong around a device is one sentence, where somebody reads it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import tvmpipe
from tests.runtime.cable import Cable, lasting_ports
from tests.runtime.fakes import unused_port
from tests.runtime.processes import stage_host
from tests.runtime.strangers import needs_root, run_as_other
from tests.waiting import PATIENCE_S, no_hang, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError, DeviceLostError
from tvmpipe.process import describe_exit
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.transport.tracker import wait_for_keys
from tvmpipe.runtime.transport.versions import difference, own_versions, work_together

_NAMELESS = "import os; os.setgroups([]); os.setgid(12345); os.setuid(12345); os.environ.pop('HOME', None)\n"
_NAMELESS += "for name in ('USER', 'LOGNAME', 'LNAME', 'USERNAME', 'XDG_CACHE_HOME'): os.environ.pop(name, None)\n"


def as_nobody_known(imports: str, code: str) -> str:
    """What Python code prints as a user without a name and a home."""
    done = subprocess.run(
        [sys.executable, "-c", imports + "\n" + _NAMELESS + code],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_root
def test_a_user_without_a_name() -> None:
    owner = as_nobody_known("from tvmpipe.runtime.head.deployer import _owner", "print(_owner())")
    assert owner.startswith("uid 12345@")


@needs_root
def test_a_user_without_a_home() -> None:
    code = "try:\n    default_store()\nexcept InputError as error:\n    print(error)"
    for module in ("runtime.device.blob_store", "targets.store.profile_store"):
        imports = f"from tvmpipe.{module} import default_store\nfrom tvmpipe.errors import InputError"
        said = as_nobody_known(imports, code)
        assert said == "uid 12345 has no home folder to keep files in: set XDG_CACHE_HOME to a folder for them"


@needs_root
def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    imports = (
        "from tvmpipe.runtime.device import agent, blob_store, device_manager\nfrom tvmpipe.errors import InputError\n"
        "from pathlib import Path\nimport tempfile, encodings.idna, psutil, tvmpipe.runtime.device.advertise"
    )
    for store in (tmp_path, tmp_path / "new"):
        options = f"agent.AgentOptions(tracker='127.0.0.1:1', key='a', threads=1, store=Path({str(store)!r}))"
        said = run_as_other(f"try:\n    agent.serve({options})\nexcept InputError as error:\n    print(error)", imports)
        assert re.fullmatch(
            rf"store {store} cannot be written: (Permission denied|Operation not permitted); give --store FOLDER", said
        )


def test_an_agent_waits_for_its_tracker(tmp_path: Path) -> None:
    """It says so once, goes on trying, and says when that is over."""
    port = unused_port()
    log = tmp_path / "log"
    arguments = ["--tracker", f"127.0.0.1:{port}", "--key", "late", "--store", str(tmp_path / "store")]
    with log.open("w") as out, contextlib.ExitStack() as stack:
        agent = subprocess.Popen([sys.executable, "-m", "tvmpipe", "agent", *arguments], stdout=out, stderr=out)
        stack.callback(agent.wait, PATIENCE_S)
        stack.callback(agent.kill)
        waiting = f"no tracker answers at 127.0.0.1:{port} (Connection refused)"
        wait_until(lambda: waiting in log.read_text())
        time.sleep(5)
        assert log.read_text().count(waiting) == 1, log.read_text()
        assert "waiting for it" in log.read_text()
        code = f"from tvm.rpc import tracker; tracker.PopenTrackerServerState('127.0.0.1', {port}, {port + 1}, True)"
        tracker = subprocess.Popen([sys.executable, "-c", code])
        stack.callback(tracker.wait, PATIENCE_S)
        stack.callback(tracker.kill)
        wait_for_keys(f"127.0.0.1:{port}", ["late"], PATIENCE_S)
        assert f"the tracker at 127.0.0.1:{port} answers now" in log.read_text()


def test_a_link_port_that_was_taken_while_nobody_used_it(chain_bundle: Bundle, tmp_path: Path) -> None:
    (port,) = lasting_ports(1)
    agents = [LocalAgent("alpha"), LocalAgent("beta", options=("--link-port", str(port))), LocalAgent("gamma")]
    with local_cluster(agents, store=tmp_path) as cluster, socket.create_server(("127.0.0.1", port)), no_hang():
        sentence = f"device beta cannot host its stages: cannot listen on 127.0.0.1:{port}: the port is taken"
        with pytest.raises(DeviceError, match=sentence):
            tvmpipe.connect(chain_bundle, cluster.tracker)


def test_a_device_that_is_told_to_send_to_itself(chain_bundle: Bundle, tmp_path: Path) -> None:
    port, own = lasting_ports(2)
    beta = LocalAgent("beta", options=("--link-port", str(port)))
    gamma = LocalAgent("gamma", options=("--link-port", str(own), "--advertise", f"127.0.0.1:{port}"))
    sentence = f"device gamma is said to be at 127.0.0.1:{port}, which to beta is itself"
    with (
        local_cluster([LocalAgent("alpha"), beta, gamma], store=tmp_path) as cluster,
        no_hang(),
        pytest.raises(DeviceError, match=sentence),
    ):
        tvmpipe.connect(chain_bundle, cluster.tracker)


def test_a_device_that_gets_its_own_messages_back(chain_bundle: Bundle, tmp_path: Path) -> None:
    """Over an address that does not look like its own: a forwarded port."""
    port, own = lasting_ports(2)
    cable = Cable(port)
    beta = LocalAgent("beta", options=("--link-port", str(port)))
    gamma = LocalAgent("gamma", options=("--link-port", str(own), "--advertise", f"127.0.0.1:{cable.port}"))
    with (
        local_cluster([LocalAgent("alpha"), beta, gamma], store=tmp_path) as cluster,
        no_hang(),
        tvmpipe.connect(chain_bundle, cluster.tracker) as pipe,
        pytest.raises(DeviceLostError) as caught,
    ):
        pipe.run({"x": np.ones((4, 256), np.float32)})
    cable.close()
    assert "device beta failed: what it sends comes back to it" in str(caught.value)
    assert f"gamma at 127.0.0.1:{cable.port}" in str(caught.value)


def test_a_host_that_a_signal_ended(chain_bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    agents = [LocalAgent(key) for key in ("alpha", "beta", "gamma")]
    with local_cluster(agents, store=tmp_path / "store", log=log) as cluster:
        with tvmpipe.connect(chain_bundle, cluster.tracker, recover_s=0) as pipe:
            stage_host(psutil.Process(cluster.process("beta").pid)).send_signal(signal.SIGKILL)
            with pytest.raises(DeviceLostError):
                for _ in range(100):
                    pipe.run({"x": np.ones((4, 256), np.float32)})
        wait_until(lambda: "stage host ended" in log.read_text())
    text = " ".join(log.read_text().split())
    assert "the stage host ended (killed by SIGKILL, as Linux does to a process when memory runs out" in text
    assert text.count("stage host ended") == 1, "hosts that are ended on purpose are no news"


def test_how_a_process_ended() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert describe_exit(-signal.SIGKILL).startswith("killed by SIGKILL, as Linux does")
    assert describe_exit(-(signal.SIGRTMIN + 1)) == f"killed by signal {signal.SIGRTMIN + 1}"


def test_versions() -> None:
    ours = own_versions()
    assert difference(ours) is None
    assert work_together(ours)
    major, minor, *_ = ours["apache-tvm"].split(".")
    patched = {**ours, "apache-tvm": f"{major}.{minor}.99"}
    assert work_together(patched)
    assert "`pip install tvmpipe==" in (difference(patched) or "")
    for other in ({**ours, "tvmpipe": "99.0"}, {**ours, "apache-tvm": f"{major}.{int(minor) + 1}.0"}, {}):
        assert not work_together(other)
        assert difference(other)


def test_a_device_of_another_version(chain_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmpipe.runtime.transport import versions

    with local_cluster([LocalAgent(key) for key in ("alpha", "beta", "gamma")], store=tmp_path) as cluster:
        monkeypatch.setattr(versions, "version", lambda name: "99.0")
        sentence = (
            r"device alpha cannot be used: it has tvmpipe .* this machine tvmpipe 99\.0 .*`pip install tvmpipe==99"
        )
        with pytest.raises(DeviceError, match=sentence):
            tvmpipe.connect(chain_bundle, cluster.tracker)


def test_users_have_names() -> None:
    from tvmpipe.process import user_name

    assert user_name()
    assert os.getuid() != 0 or user_name() != "uid 0"
