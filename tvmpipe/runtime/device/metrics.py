"""What an agent has done, for Prometheus, and whether it is well, for whoever watches over it.

Needs the package prometheus_client, which only agents with `--metrics-port` import.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tvmpipe.errors import InputError, TrackerError
from tvmpipe.runtime.device.totals import BUCKETS_S, StageCount
from tvmpipe.runtime.transport import deadlines
from tvmpipe.runtime.transport.tracker import Tracker

logger = logging.getLogger(__name__)

Ask = Callable[[], dict[str, Any]]
"""What a device manager answers to `info`; raises OSError when it does not answer."""

_MOST_CONNECTIONS = 16
_LABELS = ("stage", "device")


class AgentCollector(Collector):
    """Turns what the device manager tells into metrics, at each scrape anew. Raises OSError when it does not answer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Names and units as Prometheus has them: seconds, bytes, counters that end in `_total`."""
        info = self._ask()
        emulated = "true" if info["emulated"] else "false"
        yield InfoMetricFamily(
            "tvmpipe",
            "Versions of this agent and whether it behaves as a slower device than it is.",
            {"version": info["tvmpipe"], "tvm": info["apache-tvm"], "machine": info["machine"], "emulated": emulated},
        )
        yield from _stages(info["totals"]["stages"])
        totals = info["totals"]
        yield _counter("tvmpipe_sessions", "Pipelines whose stages were opened here.", totals["sessions"])
        yield _counter("tvmpipe_messages_refused", "Messages that fitted no open pipeline.", totals["refused"])
        yield _counter("tvmpipe_rpc_server_starts", "Starts of the RPC server.", info["server_starts"])
        yield _gauge("tvmpipe_rpc_server_up", "Whether the RPC server runs.", info["server_up"])
        yield _gauge("tvmpipe_device_held", "Whether a head has this device.", info["held_by"] is not None)
        yield _gauge("tvmpipe_host_failed", "Whether the stages have failed.", info["host"] == "failed")
        yield _gauge("tvmpipe_memory_offered_bytes", "Memory that stages may take here.", info["memory_bytes"])
        status = info["status"]
        if status is not None:
            yield _gauge("tvmpipe_host_resident_memory_bytes", "Memory of the stage host.", status["memory_bytes"])
            yield _gauge("tvmpipe_host_status_age_seconds", "Time since it told.", status["age_s"])


def _stages(stages: list[dict[str, Any]]) -> Iterator[Metric]:
    samples = CounterMetricFamily("tvmpipe_stage_samples", "Samples that a stage has computed.", labels=_LABELS)
    receive = CounterMetricFamily(
        "tvmpipe_stage_receive_seconds", "Time between a sender's handing over and the taking in.", labels=_LABELS
    )
    send = CounterMetricFamily("tvmpipe_stage_send_seconds", "Time for packing and handing over.", labels=_LABELS)
    compute = HistogramMetricFamily("tvmpipe_stage_compute_seconds", "Time to compute one sample.", labels=_LABELS)
    for stage in stages:
        labels = (stage["stage"], stage["device"])
        count = StageCount.from_list(stage["counts"])
        samples.add_metric(labels, count.samples)
        receive.add_metric(labels, count.receive_s)
        send.add_metric(labels, count.send_s)
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        # Prometheus counts in each bucket those of the smaller ones too.
        buckets = list(zip(bounds, map(float, itertools.accumulate(count.histogram)), strict=True))
        compute.add_metric(labels, buckets, sum_value=count.compute_s)
    yield from (samples, receive, send, compute)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, float(value))


class TrackerLook:
    """Whether heads find this agent: what keeps them from it, or None. Callers within a second share one look."""

    def __init__(self, tracker: str, key: str) -> None:
        self._tracker = tracker
        self._key = key
        self._lock = threading.Lock()
        self._due = 0.0
        self._fault: str | None = None

    def __call__(self) -> str | None:
        with self._lock:
            if time.monotonic() >= self._due:
                self._fault = self._look()
                self._due = time.monotonic() + deadlines.HEALTH_AGAIN_S
            return self._fault

    def _look(self) -> str | None:
        try:
            with Tracker(self._tracker, timeout_s=deadlines.HEALTH_TRACKER_S) as tracker:
                known = any(status.key == self._key and status.total for status in tracker.status())
        except TrackerError as error:
            return str(error)
        return None if known else f"no agent with key {self._key!r} is registered at {self._tracker}"


def health(ask: Ask, unfound: Callable[[], str | None]) -> tuple[int, dict[str, Any]]:
    """An HTTP status and what `/healthz` answers: 200 while heads can find it and be served, else 503 with a `reason`.

    `unfound` says what keeps heads from finding it, or None.
    """
    try:
        info = ask()
    except OSError:
        return 503, {"status": "failed", "reason": "the agent does not answer; it is starting its RPC server, or hangs"}
    if not info["server_up"]:
        return 503, {"status": "failed", "reason": "the RPC server has ended and is being started again"}
    if info["host"] == "failed":
        return 503, {"status": "failed", "reason": f"the stages have failed: {info['host_message']}"}
    reason = unfound()
    if reason is not None:
        return 503, {"status": "failed", "reason": reason}
    return 200, {"status": "ok", "held": info["held_by"] is not None, "host": info["host"]}


class MetricsServer:
    """Answers GET of /metrics and /healthz in threads of its own until closed; a context manager.

    At most 16 connections are served at once, and each must have asked within 5 s. Who comes when all are taken has
    the place of whoever has been longest without asking. `unfound` is as in `health`. Raises InputError when nothing
    can listen there.
    """

    def __init__(self, host: str, port: int, ask: Ask, unfound: Callable[[], str | None]) -> None:
        registry = CollectorRegistry()
        registry.register(AgentCollector(ask))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        handler = type(
            "Handler", (_Handler,), {"ask": staticmethod(ask), "unfound": staticmethod(unfound), "registry": registry}
        )
        try:
            self._server = type("Server", (_Server,), {"address_family": family})((host, port), handler)
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port} for metrics: {error.strerror or error}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="tvmpipe-metrics", daemon=True)
        self._thread.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._asked: dict[socket.socket, bool] = {}  # of each connection, oldest first
        super().__init__(*arguments)

    def asked(self, connection: socket.socket) -> None:
        """Somebody has said what he wants, and is not hung up on before he has it."""
        with self._lock:
            if connection in self._asked:
                self._asked[connection] = True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Threads are bounded: when all are taken, whoever has been longest without asking is hung up on."""
        with self._lock:
            if len(self._asked) >= _MOST_CONNECTIONS:
                slow = next((one for one, asked in self._asked.items() if not asked), None)
                if slow is not None:
                    del self._asked[slow]
                    with contextlib.suppress(OSError):  # it has gone by itself
                        slow.shutdown(socket.SHUT_RDWR)
            taken = len(self._asked) < _MOST_CONNECTIONS
            if taken:
                self._asked[request] = False
        if taken:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._asked.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a request for metrics from %s failed", client_address, exc_info=True)


class _Timed(io.RawIOBase):
    """What comes over a connection until a deadline (monotonic seconds), however slowly. Raises TimeoutError then."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Handler(http.server.BaseHTTPRequestHandler):
    ask: Ask
    unfound: Callable[[], str | None]
    registry: CollectorRegistry
    timeout = deadlines.METRICS_S
    server_version = "tvmpipe"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Timed(self.connection, time.monotonic() + deadlines.METRICS_S))

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.asked(self.connection)
        self.connection.settimeout(deadlines.METRICS_S)
        path = self.path.partition("?")[0]
        if path == "/metrics":
            try:
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.registry))
            except OSError as error:
                self._answer(503, "text/plain; charset=utf-8", f"{error}\n".encode())
        elif path == "/healthz":
            status, facts = health(self.ask, self.unfound)
            self._answer(status, "application/json", json.dumps(facts).encode())
        else:
            self._answer(404, "text/plain; charset=utf-8", b"there is /metrics and /healthz\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("metrics: " + format, *args)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
