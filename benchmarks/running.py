"""A pipeline on emulated devices of this machine, timed in blocks of samples."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import tvmpipe
from benchmarks.emulated import agent_of
from tvmpipe.bundle import Bundle
from tvmpipe.commands.progress import count_progress
from tvmpipe.commands.samples import random_samples
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import local_cluster
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.targets.description.cluster import Cluster

_BLOCK_S = 4.0  # a block of a round, at least so long
_FEWEST, _MOST = 4, 60  # samples of a block
_ALONE_S = 4.0  # samples one by one, so long


class Running:
    """A bundle on agents of its own, with as many samples under way as its plan says."""

    def __init__(self, bundle: Bundle, cluster: Cluster, profiles: Path, stack: ExitStack) -> None:
        store = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tvmpipe-")))
        used = [device for device in cluster.devices if device.name in bundle.manifest.plan.devices]
        local = stack.enter_context(
            local_cluster([agent_of(one, cluster.network, profiles) for one in used], store=store)
        )
        self.pipe: Pipeline = stack.enter_context(tvmpipe.connect(bundle, local.tracker, batch=1, timeout_s=300))
        self.inflight = self.pipe.inflight
        self.samples = random_samples(bundle.manifest, 2, seed=0)
        self.predicted_s = bundle.manifest.plan.predicted.period_s

    def warm_up(self, reference: Reference) -> None:
        """Allocate, let the emulation see some runs, and compare a result with ONNX Runtime's."""
        self.pipe.warm_up()
        result, *_ = [self.pipe.run(self.samples[0]) for _ in range(5)]
        if not (found := reference.compare(result, self.samples[0])).equal:
            raise SystemExit(found.sentence)

    def block(self, title: str) -> float:
        """The period of a block of samples.

        It counts while the pipeline is full, after as many results as are in flight and before the last sample goes in:
        a device with several stages has less to do for each result when it fills and when it drains.
        """
        count = min(_MOST, max(_FEWEST, math.ceil(_BLOCK_S / self.predicted_s)))
        numbers = range(2 * self.inflight + count)
        done = []
        for _ in count_progress(self.pipe.stream(self.samples[n % 2] for n in numbers), title, len(numbers)):
            done.append(time.perf_counter())
        return (done[self.inflight + count - 1] - done[self.inflight - 1]) / count

    def alone_s(self) -> float:
        """Median seconds of one sample alone."""
        took: list[float] = []
        while len(took) < 3 or (sum(took) < _ALONE_S and len(took) < _MOST):
            started = time.perf_counter()
            self.pipe.run(self.samples[0])
            took.append(time.perf_counter() - started)
        return statistics.median(took)
