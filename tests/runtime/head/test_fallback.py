"""Stages that ONNX Runtime runs, on devices: results of any size travel, and a lost device is done without."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvmpipe
from tests.fallback_models import detector, images
from tvmpipe.commands.results import ResultWriter
from tvmpipe.equality import compare
from tvmpipe.passes import driver
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.targets.description.cluster import parse_cluster

TWO = parse_cluster("".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in ("front", "tail")))
COUNT = 12


def test_a_detector_over_two_devices_of_which_one_is_lost(tmp_path: Path) -> None:
    """Its tail is on the second, which behaves as a slower one; suppressed boxes leave it in batches of three."""
    import numpy as np

    primitives = driver.front(detector()).graph.by_name().values()
    pins = {one.name: "tail" if one.fallback else "front" for one in primitives}
    bundle = tvmpipe.build(detector(), TWO, pins=pins, failover=True)
    runs_where = {stage.codegen: stage.device for stage in bundle.manifest.plan.stages}
    assert runs_where == {"llvm": "front", "onnxruntime": "tail"}
    samples = images(COUNT)
    reference = Reference(detector().SerializeToString(), threads=1)
    wanted = [reference.expect(sample) for sample in samples]
    agents = [LocalAgent("front"), LocalAgent("tail", options=("--slowdown", "2"))]
    sizes, done = set(), 0
    with (
        local_cluster(agents, store=tmp_path / "store") as cluster,
        tvmpipe.connect(bundle, cluster.tracker, failover=True, batch=3, inflight=6, trace=True) as pipe,
        ResultWriter(tmp_path / "found.npz", bundle.manifest, COUNT) as writer,
    ):
        for result, want in zip(pipe.stream(samples), wanted, strict=True):
            found = compare(result, want)
            assert found.equal, found.sentence
            sizes.add(result["found"].shape)
            writer.take(result)
            done += 1
            if done == 4:
                spans = {event["args"]["onnx_nodes"][0] for event in pipe.trace() if event.get("cat") == "compute"}
                assert spans == {"stem", "nms"}
                cluster.kill("tail")
        writer.finish()
        assert pipe.lost == ("tail",)
        assert pipe.devices == ("front",)
    assert done == COUNT
    assert len(sizes) > 3, "samples of a batch must differ in what they find"
    with np.load(tmp_path / "found.npz") as written:
        assert written["score"].shape == (COUNT, 1, 64)
        assert all(written[f"found/{n}"].shape == want.outputs["found"].shape for n, want in enumerate(wanted))


def test_a_device_without_onnx_runtime_is_told_what_to_install() -> None:
    from types import SimpleNamespace
    from typing import Any

    from tvmpipe.errors import DeviceError
    from tvmpipe.runtime.head.agent_client import AgentClient

    bundle = tvmpipe.build(detector(), TWO.only("tail"))
    client: Any = object.__new__(AgentClient)
    client.session = SimpleNamespace(device=bundle.manifest.device("tail"))
    client.facts = SimpleNamespace(machine=bundle.manifest.device("tail").triple.split("-")[0], runners=["llvm"])
    with pytest.raises(
        DeviceError,
        match=r"device tail cannot run stage s1.*'onnxruntime' compiled: it has runners for llvm; "
        r"there, install it with: pip install 'tvmpipe\[onnxruntime\]'",
    ):
        client.check(bundle.manifest.plan.stages)
