"""`agent --user-limits`: a stage has the memory that it promised, and one that takes more is told so."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tvmpipe
from tests.models import chain, save
from tvmpipe.bundle import SEAL, Bundle
from tvmpipe.errors import DeviceError, TvmpipeError
from tvmpipe.runtime.device.control_groups import ControlGroup, ControlGroups
from tvmpipe.runtime.device.limits import is_want_of_memory
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.targets.cost.roofline import Roofline

ONE = '[[device]]\nname = "solo"\nthreads = 1\n'
SIZE = 6144


def outer(size: int) -> onnx.ModelProto:
    """`x` float32[1,size] -> the largest share in a row of the products of its pairs: size^2 numbers and more."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["column"], perm=[1, 0]),
        helper.make_node("MatMul", ["column", "x"], ["products"]),
        helper.make_node("Softmax", ["products"], ["shares"], axis=1),
        helper.make_node("ReduceMax", ["shares"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "outer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    limited = LocalAgent("solo", options=("--user-limits",))
    with local_cluster([limited], store=tmp_path_factory.mktemp("store")) as cluster:
        yield cluster


def built(model: onnx.ModelProto, folder: Path) -> Bundle:
    (folder / "cluster.toml").write_text(ONE)
    return tvmpipe.build(save(model, folder), folder / "cluster.toml", cost_model=Roofline())


def promising_little(bundle: Bundle, folder: Path) -> Bundle:
    """The same, whose stages say that they need no activations."""
    bundle.save(folder / "bundle")
    path = folder / "bundle" / "manifest.json"
    facts = json.loads(path.read_text())
    for plan in facts["plans"]:
        for stage in plan["stages"]:
            stage["activation_bytes"] = 0
    content = json.dumps(facts).encode()
    path.write_bytes(content)
    path.with_name(SEAL).write_text(f"{hashlib.sha256(content).hexdigest()}\n")
    return tvmpipe.load(folder / "bundle")


def test_a_stage_that_keeps_its_promise_runs(agents: LocalCluster, tmp_path: Path) -> None:
    for number, model in enumerate((outer(SIZE), chain(8, 1024))):
        folder = tmp_path / str(number)
        folder.mkdir()
        bundle = built(model, folder)
        (x,) = bundle.manifest.model.inputs
        with tvmpipe.connect(bundle, agents.tracker) as pipe:
            assert np.isfinite(pipe.run({"x": np.ones(x.shape, np.float32)})["y"]).all()


def test_a_stage_that_takes_more_than_it_promised_is_told_so(agents: LocalCluster, tmp_path: Path) -> None:
    """In one sentence, which is the device's and no sample's, and its process goes on with what comes next."""
    bundle = built(outer(SIZE), tmp_path)
    little = promising_little(bundle, tmp_path)
    sample = {"x": np.ones((1, SIZE), np.float32)}
    with (
        pytest.raises(TvmpipeError, match=r"stages s0 take more memory than they promised, .*\(--user-limits\)"),
        tvmpipe.connect(little, agents.tracker, recover_s=0) as pipe,
    ):
        pipe.run(sample)
    with tvmpipe.connect(bundle, agents.tracker) as pipe:
        assert np.isfinite(pipe.run(sample)["y"]).all()


@pytest.mark.parametrize(
    ("error", "wanting"),
    [
        (MemoryError(), True),
        (MemoryError("Unable to allocate 3 GiB for an array"), True),
        (MemoryError("the stages' weights take 3 GiB, the agent offers 1 GiB"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left"), False),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes differ"), False),
        (DeviceError("gone"), False),
    ],
    ids=str,
)
def test_what_is_a_want_of_memory(error: Exception, wanting: bool) -> None:
    assert is_want_of_memory(error) is wanting


@pytest.fixture
def delegated(tmp_path: Path) -> Callable[..., ControlGroups]:
    """Control groups of a folder in the kernel's place."""
    (tmp_path / "own").write_text("0::/system.slice/agent.service\n")
    folder = tmp_path / "system.slice" / "agent.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (folder / "cgroup.subtree_control").write_text("\n")
    return lambda: ControlGroups(tmp_path, tmp_path / "own")


def test_a_control_group_of_a_host(delegated: Any, tmp_path: Path) -> None:
    """Beside the agent's, with the memory in use bounded; what the system ends there is known."""
    groups = delegated()
    own = tmp_path / "system.slice" / "agent.service"
    assert (own / "agent" / "cgroup.procs").read_text() == f"{os.getpid()}\n"
    assert (own / "cgroup.subtree_control").read_text() == "+memory\n"
    group: ControlGroup = groups.make("host-9200")
    group.hold(7, 1 << 20)
    host = own / "host-9200"
    assert (host / "memory.max").read_text() == "1048576\n"
    assert (host / "cgroup.procs").read_text() == "7\n"
    assert not group.exceeded
    (host / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert group.exceeded


def test_no_control_groups_where_none_are_delegated(delegated: Any, tmp_path: Path) -> None:
    own = tmp_path / "system.slice" / "agent.service"
    (own / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(OSError, match="no memory controller"):
        delegated()
    (tmp_path / "own").write_text("4:memory:/somewhere\n")
    with pytest.raises(OSError, match="no control group of version 2"):
        delegated()
    assert not (own / "agent").exists()
