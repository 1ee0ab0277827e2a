"""Reading models: what is accepted, and what each bad one is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import branchy, chain, save
from tvmpipe.errors import InputError, ModelError, UnsupportedModelError
from tvmpipe.passes.frontend.import_onnx import Imported, import_onnx


def imported(source: object, shapes: Mapping[str, Sequence[int]] | None = None) -> Imported:
    return import_onnx(source, shapes or {}, {})


def one_node(operator: str, shape: list[int | str], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], name="the_node", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_signature_is_that_of_the_file(branchy_path: Path) -> None:
    signature = imported(branchy_path).signature
    assert [str(spec) for spec in signature.inputs] == ["image: float32[1,3,16,16]", "ids: int64[1,4]"]
    assert [str(spec) for spec in signature.outputs] == ["scores: float32[1,8]", "mask: bool[1,8,8,8]"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx does not exist"):
        imported(tmp_path / "none.onnx")


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(branchy().SerializeToString()[:keep])
    with pytest.raises(ModelError, match=r"cut\.onnx is not a (complete|valid) ONNX"):
        imported(path)


def test_open_dimensions_must_be_given(tmp_path: Path) -> None:
    path = save(one_node("Relu", ["N", 3]), tmp_path)
    with pytest.raises(InputError, match=r"'x' has open dimensions \[N,3\].*--dim N=1"):
        imported(path)
    state = imported(path, shapes={"x": (2, 3)})
    assert state.signature.outputs[0].shape == (2, 3)


@pytest.mark.parametrize("shape", [(2, 4), (2,), (0, 3)])
def test_shape_must_fit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"does not fit the model's \[N,3\]"):
        imported(save(one_node("Relu", ["N", 3]), tmp_path), shapes={"x": shape})


def test_shape_of_unknown_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'z', which is no input of the model; allowed: x"):
        imported(save(one_node("Relu", [1, 3]), tmp_path), shapes={"z": (1, 3)})


def test_unsupported_operator_is_named_with_its_node(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="node 'the_node' is operator Bernoulli, which TVM cannot"):
        imported(save(one_node("Bernoulli", [1, 3]), tmp_path))


def test_operator_that_fails_to_convert_is_named_with_its_node() -> None:
    graph = helper.make_graph(
        [helper.make_node("Pad", ["x", "pads"], ["y"], name="dynamic_pad")],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
            helper.make_tensor_value_info("pads", TensorProto.INT64, [4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedModelError, match=r"node 'dynamic_pad' \(Pad\)"):
        imported(model)


def test_strings_are_refused() -> None:
    model = one_node("Identity", [3])
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(UnsupportedModelError, match="input 'x' has elements of type string; allowed: bool"):
        imported(model)


def test_external_weights(tmp_path: Path) -> None:
    model = chain(2, 64)
    inside = imported(save(model, tmp_path, "inside.onnx"))
    path = tmp_path / "outside.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="outside.bin", size_threshold=0)
    outside = imported(path)
    assert outside.signature.outputs == inside.signature.outputs
    assert outside.signature.sha256 != inside.signature.sha256

    before = outside.signature.sha256
    data = bytearray((tmp_path / "outside.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "outside.bin").write_bytes(data)
    after = imported(path).signature
    assert after.sha256 != before, "the hash must cover the external data"

    (tmp_path / "outside.bin").unlink()
    with pytest.raises(ModelError, match=r"keeps weights in outside\.bin, which is not beside it"):
        imported(path)


def test_computed_pads_are_folded() -> None:
    """What torch writes for a pad: arithmetic on constants that TVM's importer refuses as it is."""
    nodes = [
        helper.make_node("Concat", ["real", "zeros"], ["all"], axis=0),
        helper.make_node("Cast", ["all"], ["pads"], to=TensorProto.INT64),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.zeros(4, dtype=np.int32), "zeros"),
            numpy_helper.from_array(np.ones(4, dtype=np.int32), "real"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    signature = imported(model).signature
    assert signature.outputs[0].shape == (2, 2, 5, 5)


def test_large_weights_are_optimised_without_being_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the threshold lowered, the optimiser sees inputs instead of weights, and the result has them back."""
    from tvmpipe.passes.frontend import weightless

    monkeypatch.setattr(weightless, "LARGE_BYTES", 1000)
    monkeypatch.setattr(weightless, "_WORTHWHILE_BYTES", 1000)
    seen = []

    def transform(model: onnx.ModelProto) -> onnx.ModelProto:
        seen.append([tensor.name for tensor in model.graph.initializer])
        return model

    model = chain(2, 64)
    result = weightless.on_structure(model, transform)
    assert seen == [[]]
    assert [value.name for value in result.graph.input] == ["x"]
    assert {tensor.name for tensor in result.graph.initializer} == {"w0", "w1"}
    assert [str(spec) for spec in imported(model).signature.outputs] == ["y: float32[4,64]"]
