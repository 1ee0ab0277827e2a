"""Stages on agents and stock servers, over TVM RPC on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import tvmpipe
from tests.models import branchy, chain
from tests.runtime.processes import stage_host
from tests.runtime.stock import stock_server
from tests.waiting import PATIENCE_S, no_hang
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import worst
from tvmpipe.errors import DeviceError, DeviceLostError, DeviceUnavailableError, TrackerError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.tracker import Tracker

KEYS = ["alpha", "beta", "gamma"]


def test_stream_over_agents_equals_onnx_runtime(branchy_bundle: Bundle, agents: LocalCluster) -> None:
    reference = Reference(branchy().SerializeToString())
    samples = random_samples(branchy_bundle.manifest, 40, seed=5)
    assert {stage.device for stage in branchy_bundle.manifest.plan.stages} == set(KEYS)
    with tvmpipe.connect(branchy_bundle, agents.tracker) as pipe:
        assert set(pipe.agents) == set(KEYS)
        results = list(pipe.stream(samples))
    found = [reference.compare(result, s) for s, result in zip(samples, results, strict=True)]
    assert len(found) == 40
    assert worst(found).equal


def test_nothing_is_sent_twice(chain_bundle: Bundle, agents: LocalCluster) -> None:
    needed = {
        (stage.device, file.path)
        for stage in chain_bundle.manifest.plan.stages
        for file in (stage.library, *stage.weight_files)
    }
    size = sum((chain_bundle.root / path).stat().st_size for _, path in needed)
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe:
        assert pipe.sent_bytes <= size  # other tests' bundles of this model have some of the files
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe:
        assert pipe.sent_bytes == 0
        pipe.run({"x": np.ones((4, 256), np.float32)})


def test_stock_rpc_server(chain_bundle: Bundle, tmp_path: Path) -> None:
    """Two agents and one `tvm.exec.rpc_server` under the third key."""
    reference = Reference(chain().SerializeToString())
    agents = [LocalAgent(key) for key in KEYS[:2]]
    with local_cluster(agents, store=tmp_path) as cluster, stock_server(cluster.tracker, "gamma"):
        for _ in range(2):  # the server must serve again after a session
            with tvmpipe.connect(chain_bundle, cluster.tracker, connect_timeout_s=PATIENCE_S) as pipe:
                assert set(pipe.agents) == {"alpha", "beta"}
                for sample in random_samples(chain_bundle.manifest, 3, seed=2):
                    assert reference.compare(pipe.run(sample), sample).equal


def test_no_tracker(chain_bundle: Bundle) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with no_hang(), pytest.raises(TrackerError, match=f"no tracker answers at {address}"):
            tvmpipe.connect(chain_bundle, address)


def test_something_else_listens_there(chain_bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with no_hang(), pytest.raises(TrackerError, match="is not a TVM RPC tracker"):
            tvmpipe.connect(chain_bundle, address)


def test_a_tracker_that_falls_silent(chain_bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        thread = threading.Thread(target=shake_hands_and_stop, args=(mute,), daemon=True)
        thread.start()
        with pytest.raises(TrackerError, match="did not answer within"):
            tvmpipe.connect(chain_bundle, f"127.0.0.1:{mute.getsockname()[1]}", connect_timeout_s=1.0)


def shake_hands_and_stop(server: socket.socket) -> None:
    kept = []
    while True:
        connection, _ = server.accept()
        connection.sendall(connection.recv(4))
        kept.append(connection)


def test_a_silent_connection_does_not_block_an_agent(chain_bundle: Bundle, tmp_path: Path) -> None:
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster:
        with Tracker(cluster.tracker) as tracker:
            address = next(status.addresses[0] for status in tracker.status() if status.key == "beta")
        host, port = address.split(":")
        with socket.create_connection((host, int(port))):
            time.sleep(1)
            with tvmpipe.connect(chain_bundle, cluster.tracker, connect_timeout_s=PATIENCE_S) as pipe:
                # Longer than the limit on handshakes: a session in use must not fall under it.
                time.sleep(6)
                pipe.run({"x": np.ones((4, 256), np.float32)})


def test_agents_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tvmpipe.runtime.emulation.local_cluster import *\n"
        f"with local_cluster([LocalAgent('solo')], store=Path({str(tmp_path)!r})) as c:\n"
        "    print(c.tracker, flush=True); time.sleep(60)\n"
    )
    head = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert head.stdout is not None
    assert head.stdout.readline()
    family = psutil.Process(head.pid).children(recursive=True)
    assert len(family) >= 2
    head.send_signal(signal.SIGTERM)
    head.wait(PATIENCE_S)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert not alive


def test_unknown_key(agents: LocalCluster) -> None:
    with (
        Tracker(agents.tracker) as tracker,
        pytest.raises(DeviceUnavailableError, match=r"no device with key 'delta' is registered .*: alpha, beta, gamma"),
    ):
        tracker.request("delta", 1.0)


def test_a_device_in_use_says_by_whom(chain_bundle: Bundle, agents: LocalCluster) -> None:
    with (
        tvmpipe.connect(chain_bundle, agents.tracker) as first,
        pytest.raises(DeviceUnavailableError, match=rf"device \w+ \(key \w+\) is in use by .*process {os.getpid()}"),
    ):
        first.run({"x": np.ones((4, 256), np.float32)})
        tvmpipe.connect(chain_bundle, agents.tracker, wait_s=0.5)
    with tvmpipe.connect(chain_bundle, agents.tracker) as pipe:
        pipe.run({"x": np.ones((4, 256), np.float32)})


def test_a_head_can_wait_for_a_device(chain_bundle: Bundle, agents: LocalCluster) -> None:
    first = tvmpipe.connect(chain_bundle, agents.tracker)
    threading.Timer(2.0, first.close).start()
    started = time.monotonic()
    with tvmpipe.connect(chain_bundle, agents.tracker, wait_s=PATIENCE_S) as pipe:
        assert time.monotonic() - started > 1.5
        pipe.run({"x": np.ones((4, 256), np.float32)})


def test_too_little_memory_on_the_agent(chain_bundle: Bundle, tmp_path: Path) -> None:
    small = [LocalAgent("alpha"), LocalAgent("beta", memory_bytes=100_000), LocalAgent("gamma")]
    with (
        local_cluster(small, store=tmp_path) as cluster,
        pytest.raises(DeviceError, match=r"device beta offers 97\.7 KiB of memory, its stages need"),
    ):
        tvmpipe.connect(chain_bundle, cluster.tracker)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_losing_an_agent_in_the_middle_of_a_stream(chain_bundle: Bundle, tmp_path: Path, how: signal.Signals) -> None:
    """The stream ends within its deadline, names device and stage, and gave out no wrong result."""
    reference = Reference(chain().SerializeToString())
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster:
        with tvmpipe.connect(chain_bundle, cluster.tracker, timeout_s=3.0) as pipe:
            samples = random_samples(chain_bundle.manifest, 5000, seed=0)
            family = [psutil.Process(cluster.process("beta").pid)]
            family += family[0].children(recursive=True)
            good, broken_at = 0, 0.0
            with pytest.raises(DeviceLostError) as caught:
                for sample, result in zip(samples, pipe.stream(samples), strict=True):
                    assert reference.compare(result, sample).equal
                    good += 1
                    if good == 20:
                        broken_at = time.monotonic()
                        for process in family if how == signal.SIGSTOP else family[:1]:
                            process.send_signal(how)
            ended = time.monotonic()
        assert good >= 20
        assert ended - broken_at < PATIENCE_S
        assert (caught.value.device, caught.value.stage) == ("beta", "s1")
        assert "device beta was lost, stage s1" in str(caught.value)
        if how == signal.SIGKILL:
            gone, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
            assert not alive, "sessions must not outlive their agent"
            del gone


def test_agent_serves_again_after_its_stage_host_crashed(chain_bundle: Bundle, tmp_path: Path) -> None:
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path) as cluster:
        with tvmpipe.connect(chain_bundle, cluster.tracker, recover_s=0) as pipe:
            stage_host(psutil.Process(cluster.process("beta").pid)).kill()
            with pytest.raises(DeviceLostError):
                for _ in range(100):
                    pipe.run({"x": np.ones((4, 256), np.float32)})
        with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
            pipe.run({"x": np.ones((4, 256), np.float32)})


def test_a_device_whose_head_has_died_is_free_again(chain_bundle: Bundle, tmp_path: Path) -> None:
    """Stages outlive the head until their lease ends."""
    chain_bundle.save(tmp_path / "b")
    with local_cluster([LocalAgent(key) for key in KEYS], store=tmp_path / "store") as cluster:
        code = (
            "import sys, time, tvmpipe\n"
            f"pipe = tvmpipe.connect({str(tmp_path / 'b')!r}, {cluster.tracker!r})\n"
            "print('open', flush=True); time.sleep(60)\n"
        )
        head = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert head.stdout is not None
        assert head.stdout.readline() == b"open\n"
        head.kill()
        head.wait(PATIENCE_S)
        with pytest.raises(DeviceUnavailableError, match=f"process {head.pid}"):
            tvmpipe.connect(chain_bundle, cluster.tracker, wait_s=0.5)
        with tvmpipe.connect(chain_bundle, cluster.tracker, wait_s=deadlines.LEASE_S + 5) as pipe:
            pipe.run({"x": np.ones((4, 256), np.float32)})
