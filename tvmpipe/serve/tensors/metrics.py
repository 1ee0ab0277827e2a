"""What a server of tensors has done, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Gauge, Histogram

from tvmpipe.serve.metrics import RequestMetrics

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50)


class TensorMetrics(RequestMetrics):
    """Beside what every server counts, how long requests wait and take."""

    def __init__(self) -> None:
        super().__init__()
        self._queue_s = Histogram(
            "tvmpipe_serve_queue_seconds",
            "Time to wait for a place in the pipeline.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._infer_s = Histogram(
            "tvmpipe_serve_infer_seconds",
            "Time from reading a request to its outputs.",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def watch(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        """Have gauges say what these functions return."""
        for name, text, function in (
            ("tvmpipe_serve_requests_waiting", "Requests that wait for a place in the pipeline.", waiting),
            ("tvmpipe_serve_requests_running", "Requests in the pipeline.", running),
        ):
            Gauge(name, text, registry=self.registry).set_function(function)

    def queued(self, seconds: float) -> None:
        """A request has its place."""
        self._queue_s.observe(seconds)

    def answered(self, seconds: float) -> None:
        """A request has its outputs."""
        self._infer_s.observe(seconds)
