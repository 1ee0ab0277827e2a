"""ONNX files as they are found: weights behind symbolic links, nodes in any order."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.models import chain, save
from tvmpipe.errors import ModelError
from tvmpipe.passes.frontend.onnx_values import reads
from tvmpipe.passes.frontend.read_model import read_model, sort_nodes


def external(folder: Path, location: str = "model.onnx_data") -> Path:
    path = folder / "model.onnx"
    onnx.save(chain(2, 64), str(path), save_as_external_data=True, location=location, size_threshold=0)
    return path


def weights_of(model: onnx.ModelProto) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}


def test_weights_behind_symbolic_links_as_hub_caches_keep_them(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    plain = external(tmp_path)
    for name, blob in (("model.onnx", "a1b2"), ("model.onnx_data", "c3d4")):
        (tmp_path / name).rename(blobs / blob)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    model, name, digest = read_model(snapshot / "model.onnx")
    assert name == "model"
    assert weights_of(model) == weights_of(chain(2, 64))

    for name, blob in (("model.onnx", "a1b2"), ("model.onnx_data", "c3d4")):
        (tmp_path / name).write_bytes((blobs / blob).read_bytes())
    assert read_model(plain)[2] == digest, "a link changes nothing of what the model is"

    (blobs / "c3d4").unlink()
    with pytest.raises(
        ModelError, match=r"keeps weights in model\.onnx_data, .*not beside it, a symbolic link to .*c3d4"
    ):
        read_model(snapshot / "model.onnx")


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    path = external(tmp_path)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (tmp_path / "inside").mkdir()
    inside = tmp_path / "inside" / "model.onnx"
    inside.write_bytes(model.SerializeToString())
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    with pytest.raises(ModelError, match="only files in the model's own folder are read"):
        read_model(inside)


def test_short_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"external weights of .*model\.onnx_data ends before 'w1' does"):
        read_model(path)


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    nodes = [helper.make_node("Add", ["a", "a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    read, _, _ = read_model(save(model, tmp_path))
    assert [node.op_type for node in read.graph.node] == ["Relu", "Add"]


def test_a_circle_is_named(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    nodes = [
        helper.make_node("Add", ["x", "c"], ["b"], name="first"),
        helper.make_node("Relu", ["b"], ["c"], name="second"),
        helper.make_node("Neg", ["c"], ["y"], name="after"),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ModelError, match=r"the nodes of .* form a circle: '(first|second)' \((Add|Relu)\) needs its"):
        read_model(save(model, tmp_path))


def test_a_branch_waits_for_what_it_reads_outside() -> None:
    inside = helper.make_graph(
        [helper.make_node("Neg", ["late"], ["n"]), helper.make_node("Abs", ["n"], ["r"])][::-1],
        "then",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])],
    )
    nodes = [
        helper.make_node("If", ["flag"], ["y"], then_branch=inside, else_branch=inside),
        helper.make_node("Relu", ["x"], ["late"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    sort_nodes(graph, "g")
    assert [node.op_type for node in graph.node] == ["Relu", "If"]
    assert [node.op_type for node in graph.node[1].attribute[0].g.node] == ["Neg", "Abs"]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_sorting_makes_any_order_runnable(count: int, rng: random.Random) -> None:
    nodes = []
    for number in range(count):
        before = [f"v{rng.randrange(number)}" for _ in range(2)] if number else ["x", "x"]
        nodes.append(helper.make_node("Add", before, [f"v{number}"]))
    rng.shuffle(nodes)
    graph = helper.make_graph(nodes, "g", [], [])
    sort_nodes(graph, "g")
    made = {"x"}
    for node in graph.node:
        assert set(reads(node)) <= made
        made.update(node.output)
    assert len(made) == count + 1
    before = [node.output[0] for node in graph.node]
    sort_nodes(graph, "g")
    assert [node.output[0] for node in graph.node] == before, "what is in order stays as it is"
