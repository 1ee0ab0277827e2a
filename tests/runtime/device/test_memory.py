"""A stage takes on its device the memory that the plan says, while it is loaded as well as while it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

import tvmpipe
from tests.models import chain, save, wide_convolutions
from tests.runtime.processes import stage_host
from tvmpipe.bundle import Bundle
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster

ONE = '[[device]]\nname = "solo"\ntarget = "native"\nthreads = 1\n'


def memory_of(agents: LocalCluster, bundle: Bundle) -> tuple[int, int]:
    """Bytes of the process that hosts the stages of a bundle with one input `x`: at most, and in huge pages."""
    (x,) = bundle.manifest.model.inputs
    agent = psutil.Process(agents.process("solo").pid)
    with tvmpipe.connect(bundle, agents.tracker) as pipe:
        for _ in range(2):
            pipe.run({"x": np.ones(x.shape, np.float32)})
        host = stage_host(agent)
        return proc_bytes(host.pid, "status", "VmHWM"), proc_bytes(host.pid, "smaps_rollup", "AnonHugePages")


def proc_bytes(pid: int, file: str, field: str) -> int:
    """A field of a file that Linux has of a process."""
    lines = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def huge_pages_on_request() -> bool:
    """Whether the kernel gives huge pages to who asks."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[never]" not in setting.read_text(encoding="ascii")


def planned_bytes(bundle: Bundle) -> int:
    return sum(stage.memory_bytes for stage in bundle.manifest.plan.stages)


@pytest.mark.parametrize(
    ("model", "small", "large", "at_least"),
    [(partial(chain, 8), 64, 2048, 120 << 20), (wide_convolutions, 16, 640, 60 << 20)],
    ids=["weights", "activations"],
)
def test_a_stage_takes_the_memory_that_was_planned(
    tmp_path: Path, model: Callable[[int], onnx.ModelProto], small: int, large: int, at_least: int
) -> None:
    """Compared with a model next to nothing: what the process is without a stage is the same for both."""
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(ONE)
    bundles = {size: tvmpipe.build(save(model(size), tmp_path, f"{size}.onnx"), cluster) for size in (small, large)}
    with local_cluster([LocalAgent("solo")], store=tmp_path / "store") as agents:
        found = {size: memory_of(agents, bundle) for size, bundle in bundles.items()}
    peaks = {size: peak for size, (peak, _) in found.items()}
    planned = planned_bytes(bundles[large]) - planned_bytes(bundles[small])
    assert planned > at_least
    assert abs(peaks[large] - peaks[small] - planned) < 0.02 * planned
    weights = sum(stage.weight_bytes for stage in bundles[large].manifest.plan.stages)
    if huge_pages_on_request():
        assert found[large][1] > 0.9 * weights - (4 << 20)
