"""What an agent counts over its life, and what Prometheus and a health check see of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families

import tvmpipe
from tests.models import save
from tests.runtime.fakes import unused_port
from tests.runtime.processes import stage_host
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.device.agent_totals import AgentTotals
from tvmpipe.runtime.device.metrics import MetricsServer
from tvmpipe.runtime.device.status import Status
from tvmpipe.runtime.device.totals import BUCKETS_S, StageCount
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

X = {"x": np.ones((4, 256), np.float32)}
Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Metered:
    """An agent with metrics, and where."""

    cluster: LocalCluster
    port: int

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self) -> dict[Sample, float]:
        """Every number of /metrics by name and labels."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {
            (one.name, tuple(sorted(one.labels.items()))): one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
        }

    def health(self) -> tuple[int, dict[str, Any]]:
        status, text = self.get("/healthz")
        return status, json.loads(text)

    def agent(self) -> psutil.Process:
        return psutil.Process(self.cluster.process("alpha").pid)


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    port = unused_port()
    agent = LocalAgent("alpha", options=("--metrics-port", str(port)))
    with local_cluster([agent], store=tmp_path_factory.mktemp("metered")) as cluster:
        yield Metered(cluster, port)


@pytest.fixture(scope="module")
def solo_bundle(chain_path: Path, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path]) -> Bundle:
    """`chain` on alpha alone."""
    return tvmpipe.build(chain_path, cluster_path, plan=spread_plan(chain_path, ["alpha"]))


def total(samples: dict[Sample, float], name: str) -> float:
    return sum(value for (have, _), value in samples.items() if have == name)


def test_values_of_a_run_and_counters_that_never_fall(metered: Metered, solo_bundle: Bundle) -> None:
    (stage,) = solo_bundle.manifest.plan.stages
    labels = (("device", "alpha"), ("stage", stage.name))
    before = metered.samples()
    assert total(before, "tvmpipe_sessions_total") == 0
    assert total(before, "tvmpipe_rpc_server_up") == 1
    history: list[dict[Sample, float]] = [before]
    stopped = threading.Event()

    def scrape() -> None:
        while not stopped.wait(0.1):
            history.append(metered.samples())

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        with tvmpipe.connect(solo_bundle, metered.cluster.tracker) as pipe:
            assert total(metered.samples(), "tvmpipe_device_held") == 1
            for _ in range(7):
                pipe.run(X)
            # The beat alone brings it, about once a second.
            wait_until(lambda: metered.samples().get(("tvmpipe_stage_samples_total", labels)) == 7)
            assert total(metered.samples(), "tvmpipe_host_resident_memory_bytes") > 10e6
        first = metered.samples()
        with tvmpipe.connect(solo_bundle, metered.cluster.tracker) as pipe:
            for _ in range(5):
                pipe.run(X)
        second = metered.samples()
    finally:
        stopped.set()
        scraper.join()
    history.append(second)
    assert first["tvmpipe_stage_samples_total", labels] == 7
    assert second["tvmpipe_stage_samples_total", labels] == 12, "what ended before the next beat counts too"
    assert second["tvmpipe_stage_compute_seconds_count", labels] == 12
    assert 0 < first["tvmpipe_stage_compute_seconds_sum", labels] < second["tvmpipe_stage_compute_seconds_sum", labels]
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    buckets = [second["tvmpipe_stage_compute_seconds_bucket", (labels[0], ("le", one), labels[1])] for one in bounds]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 12
    # By the head's clock as far as this host knows it: what takes less than the error of that may count as nothing.
    assert 0 <= second["tvmpipe_stage_receive_seconds_total", labels] < PATIENCE_S
    assert 0 < second["tvmpipe_stage_send_seconds_total", labels] < PATIENCE_S
    assert total(second, "tvmpipe_sessions_total") == 2
    assert total(second, "tvmpipe_device_held") == 0
    assert ("tvmpipe_host_resident_memory_bytes", ()) not in second
    for earlier, later in itertools.pairwise(history):
        for key, value in earlier.items():
            if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert later[key] >= value, key


def test_info(metered: Metered) -> None:
    import tvm

    info = dict(next(labels for name, labels in metered.samples() if name == "tvmpipe_info"))
    assert info["emulated"] == "false"
    assert info["tvm"].startswith(tvm.__version__)


def test_a_thousand_fuzzed_requests(metered: Metered) -> None:
    generator = random.Random(3)
    lines = [b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /healthz HTTP/1.0\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
    for number in range(1000):
        if number % 4 == 0:
            data = bytearray(generator.randbytes(generator.randrange(300)))
        else:
            data = bytearray(generator.choice(lines))
            for _ in range(generator.randrange(1, 6)):
                place = generator.randrange(len(data))
                data[place : place + generator.randrange(3)] = generator.randbytes(generator.randrange(4))
        connection = socket.create_connection(("127.0.0.1", metered.port), timeout=PATIENCE_S)
        with connection, contextlib.suppress(OSError):  # it may have answered and gone before it has read all
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert metered.health() == (200, {"status": "ok", "held": False, "host": None})
    assert total(metered.samples(), "tvmpipe_rpc_server_starts_total") == 1


def test_other_paths_and_methods(metered: Metered) -> None:
    assert metered.get("/")[0] == 404
    assert metered.get("/metrics?name=x")[0] == 200
    request = urllib.request.Request(f"http://127.0.0.1:{metered.port}/metrics", method="HEAD")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert (answer.status, answer.read()) == (200, b"")
    request = urllib.request.Request(f"http://127.0.0.1:{metered.port}/metrics", method="POST", data=b"x")
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(request, timeout=PATIENCE_S)


def test_connections_that_say_nothing_keep_nobody_out(metered: Metered) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", metered.port), timeout=PATIENCE_S))
        for _ in range(3):
            assert metered.health()[0] == 200


def test_connections_that_drip_keep_nobody_out_and_end(metered: Metered) -> None:
    """Each says a byte now and then, so that none is ever silent for long."""
    with contextlib.ExitStack() as stack:
        port = ("127.0.0.1", metered.port)
        dripping = [stack.enter_context(socket.create_connection(port, timeout=PATIENCE_S)) for _ in range(14)]
        ends = time.monotonic() + 7
        while time.monotonic() < ends:
            for one in dripping:
                with contextlib.suppress(OSError):  # it was hung up on
                    one.sendall(b"G")
            assert metered.health()[0] == 200
            time.sleep(0.2)
        for one in dripping:
            one.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionError):
                assert one.recv(1) == b"", "it may not ask for ever"


def test_who_has_asked_is_answered_however_many_come_after(tmp_path: Path) -> None:
    asked = threading.Event()
    answer = threading.Event()

    def ask() -> dict[str, Any]:
        asked.set()
        assert answer.wait(PATIENCE_S)
        return {"server_up": True, "host": None, "held_by": None}

    with MetricsServer("127.0.0.1", unused_port(), ask, lambda: None) as server, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        first = stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
        first.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert asked.wait(PATIENCE_S)
        for _ in range(40):
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)).sendall(b"G")
        answer.set()
        assert first.makefile("rb").readline() == b"HTTP/1.0 200 OK\r\n"


def test_health_without_a_tracker(tmp_path: Path) -> None:
    """Heads do not find it then, however well it is; when the tracker is back it is registered again."""
    port = unused_port()
    with local_cluster([LocalAgent("alpha", options=("--metrics-port", str(port)))], store=tmp_path) as cluster:
        agent = Metered(cluster, port)
        wait_until(lambda: agent.health()[0] == 200)
        cluster.kill("tracker")
        wait_until(lambda: agent.health()[0] == 503)
        assert agent.health()[1]["reason"].startswith(f"no tracker answers at {cluster.tracker}")
        cluster.restart("tracker")
        wait_until(lambda: agent.health()[0] == 200)


def test_health_of_a_host_that_has_failed(metered: Metered, solo_bundle: Bundle) -> None:
    before = total(metered.samples(), "tvmpipe_sessions_total")
    with contextlib.suppress(DeviceError), tvmpipe.connect(solo_bundle, metered.cluster.tracker, recover_s=0) as pipe:
        pipe.run(X)
        assert metered.health()[1] == {"status": "ok", "held": True, "host": "ready"}
        stage_host(metered.agent()).kill()
        wait_until(lambda: metered.health()[0] == 503)
        assert "the stages have failed: the stage host ended (killed by SIGKILL" in metered.health()[1]["reason"]
    wait_until(lambda: metered.health()[0] == 200)
    assert total(metered.samples(), "tvmpipe_sessions_total") == before + 1


def test_health_while_the_rpc_server_is_down(metered: Metered) -> None:
    server = next(one for one in metered.agent().children() if any("rpc_process" in word for word in one.cmdline()))
    server.kill()
    wait_until(lambda: metered.health()[0] == 503)
    assert "RPC server" in metered.health()[1]["reason"]
    wait_until(lambda: metered.health()[0] == 200)
    assert total(metered.samples(), "tvmpipe_rpc_server_starts_total") == 2


def test_a_device_manager_that_does_not_answer() -> None:
    def ask() -> dict[str, Any]:
        raise OSError("the agent does not answer")

    with MetricsServer("127.0.0.1", unused_port(), ask, lambda: None) as server:
        for path in ("/metrics", "/healthz"):
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=PATIENCE_S)
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{server.port} for metrics"):
            MetricsServer("127.0.0.1", server.port, ask, lambda: None)


def test_without_prometheus_client(tmp_path: Path) -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; from tvmpipe.cli import main; main()"
    arguments = ["agent", "--tracker", "127.0.0.1:1", "--key", "a", "--metrics-port", "9", "--store", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert result.returncode == 1
    wanted = "tvmpipe: error: --metrics-port needs the package 'prometheus_client'; install tvmpipe[metrics]\n"
    assert result.stderr == wanted


def status(session: str, samples: int, refused: int = 0) -> Status:
    count = StageCount()
    count.computed([0.01] * samples)
    return Status(
        session=session, device="a", sent_s=0.0, counts={"s0": count.to_list()}, busy=None, cut=[], failure=None,
        refused=refused, memory_bytes=1, last=False,
    )  # fmt: skip


def test_totals_over_many_sessions_in_any_order() -> None:
    lifetime = AgentTotals()
    seen = []
    for number in range(50):
        for samples in (0, 3, 2, 5):  # the third is older than the second
            lifetime.take(status(f"{number:016x}", samples, refused=1))
            seen.append(StageCount.from_list(lifetime.totals()["stages"][0]["counts"]))
    assert seen[-1].samples == 250
    assert sum(seen[-1].histogram) == 250
    assert seen[-1].compute_s == pytest.approx(2.5)
    assert lifetime.totals()["refused"] == 50
    for earlier, later in itertools.pairwise(seen):
        assert later.samples >= earlier.samples
        assert later.compute_s >= earlier.compute_s


def test_rates_are_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lifetime = AgentTotals()
    assert lifetime.rates("0") == {}
    for samples in (0, 10, 20, 30, 40, 50, 60, 60, 60, 60, 60, 60, 60, 60):
        lifetime.take(status("0", samples))
        rate = lifetime.rates("0").get("s0", -1.0)
        assert rate == -1.0 if now[0] == 100 else rate <= 10
        now[0] += 1
    assert lifetime.rates("0") == {"s0": 0.0}


def test_receiving_something_large_takes_longer_than_clocks_differ(
    metered: Metered, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path], tmp_path: Path
) -> None:
    size = 4 << 20
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "large", [x], [y])
    path = save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    bundle = tvmpipe.build(path, cluster_path, plan=spread_plan(path, ["alpha"]))
    name = "tvmpipe_stage_receive_seconds_total"
    before = total(metered.samples(), name)
    with tvmpipe.connect(bundle, metered.cluster.tracker) as pipe:
        for _ in range(3):
            pipe.run({"x": np.ones((1, size), np.float32)})
    assert 0 < total(metered.samples(), name) - before < PATIENCE_S
