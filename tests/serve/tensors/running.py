"""A server of tensors in a thread, on a pipeline whose devices are threads: `x` float32[2,3] -> `y`, three more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.runtime.manifests import SHAPE, chain_plan, manifest
from tests.runtime.threads import ThreadPipeline, thread_pipeline
from tests.waiting import PATIENCE_S
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.serve.server import ServeOptions
from tvmpipe.serve.tensors.server import Beside, TensorServer

NAME = "three"
MANIFEST = manifest([chain_plan("main", ["a", "b", "c"], 3)], {"x": 0}, {"y": 3})
X = {"name": "x", "datatype": "FP32", "shape": list(SHAPE)}


@dataclass
class Serving:
    """A server and what it runs on."""

    server: TensorServer
    threads: ThreadPipeline
    stopped: threading.Event

    @property
    def port(self) -> int:
        return self.server.port


@contextlib.contextmanager
def serving(
    *, inflight: int = 4, compute: Callable[..., Any] | None = None, beside: Beside | None = None, **options: Any
) -> Iterator[Serving]:
    """A server on any port, until the context ends. `compute` is what device b does."""
    settings = Settings(max_batches=inflight, recover_s=0.0)
    with thread_pipeline(MANIFEST, settings, inflight) as threads:
        if compute is not None:
            threads.devices["b"].compute = compute
        server = TensorServer(threads.pipe, NAME, ServeOptions(**{"port": 0, "drain_s": 5, **options}), beside)
        stopped = threading.Event()

        def run() -> None:
            server.run()
            stopped.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Serving(server, threads, stopped)
        finally:
            server.stop()
            thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert server.model.waiting == 0
