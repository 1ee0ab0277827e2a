"""What every server has counted, for Prometheus: names and units as Prometheus has them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class RequestMetrics:
    """What every server counts, in a registry of its own. Any thread may use it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "tvmpipe_serve_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self._disconnects = Counter(
            "tvmpipe_serve_disconnects",
            "Requests that the client left before they were answered.",
            registry=self.registry,
        )

    def count_request(self, route: str, status: int) -> None:
        """An answer that has begun."""
        self._answers.labels(route, str(status)).inc()

    def count_disconnect(self) -> None:
        """A client has gone before it had its answer."""
        self._disconnects.inc()
