"""What ONNX Runtime answers, how exact that is, and what can be known of a model beforehand."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.models import branchy, chain, chaotic, save
from tvmpipe.reference.float64 import float64_results, widened
from tvmpipe.reference.results import Reference, computes_in_half, other_inputs

node = helper.make_node
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto], shape: Sequence[int], opset: int = 17, kind: int = FLOAT, **weights: Any
) -> onnx.ModelProto:
    """`x` of `shape` -> `y`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def reference(made: onnx.ModelProto) -> Reference:
    return Reference(made.SerializeToString(), threads=1)


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_reference_is_onnx_runtime_without_optimisations() -> None:
    """With them, its noise on a model that doubles it in each layer; float64 shows that both are off."""
    one, sample = reference(chaotic()), {"x": normal(1, 16, 12, 12)}
    expected = one.expect(sample)
    assert expected.floor["y"] > 1e-5
    exact = float64_results(chaotic(), sample)
    assert exact is not None
    error = float(np.abs(exact["y"] - expected.outputs["y"]).max())
    assert expected.floor["y"] / 30 < error < expected.floor["y"] * 30
    assert one.compare(one.run(sample), sample).equal
    assert one.compare(exact, sample).verdict == "different"  # of another type
    assert one.compare({"y": exact["y"].astype(np.float32)}, sample).equal
    assert one.compare({"y": expected.outputs["y"] + np.float32(0.1)}, sample).verdict == "different"


def test_what_does_not_depend_on_the_inputs_proves_nothing() -> None:
    nodes = [node("Mul", ["x", "zero"], ["z"]), node("Add", ["z", "c"], ["y"])]
    one = reference(model(nodes, [3], zero=np.float32(0), c=np.arange(3, dtype=np.float32)))
    found = one.compare({"y": np.arange(3, dtype=np.float32)}, {"x": normal(3)})
    assert found.verdict == "proves nothing"
    assert "hardly depends on the inputs" in found.sentence


def test_a_model_with_integers_two_outputs_and_a_file(tmp_path: Path) -> None:
    one = Reference(save(branchy(), tmp_path))
    sample = {"image": normal(1, 3, 16, 16), "ids": np.array([[1, 2, 3, 9]])}
    assert one.compare(one.run(sample), sample).equal
    wrong = one.run({**sample, "ids": np.array([[1, 2, 3, 8]])})
    found = one.compare(wrong, sample)
    assert (found.verdict, found.output) == ("different", "scores")


def test_traits() -> None:
    cast = [node("Cast", ["x"], ["h"], to=HALF), node("Cast", ["h"], ["y"], to=FLOAT)]
    assert computes_in_half(model(cast, [2]))
    assert computes_in_half(model([node("Relu", ["x"], ["y"])], [2], unused=np.float16(1)))
    branch = helper.make_graph(cast, "b", [], [helper.make_tensor_value_info("y", FLOAT, None)])
    inner = [node("If", ["k"], ["y"], then_branch=branch, else_branch=branch)]
    assert computes_in_half(model(inner, [2], k=np.bool_(True)))
    assert not computes_in_half(chain(1, 8))
    assert not reference(chain(1, 8)).quantised


def test_a_quantised_model_may_be_one_step_off() -> None:
    weights: dict[str, Any] = {"s": np.float32(0.05), "z": np.int8(3)}
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    one, sample = reference(model(nodes, [20], **weights)), {"x": normal(20)}
    right = one.run(sample)["y"]
    assert one.compare({"y": right + np.float32(0.05)}, sample).equal
    assert one.compare({"y": right + np.float32(0.1)}, sample).verdict == "different"
    whole, kind = [node("QuantizeLinear", ["x", "s", "z"], ["y"])], TensorProto.INT8
    one = reference(model(whole, [20], kind=kind, **weights))
    right = one.run(sample)["y"]
    assert one.compare({"y": right + np.int8(1)}, sample).equal
    assert one.compare({"y": right + np.int8(2)}, sample).verdict == "different"


def test_weights_in_a_file_behind_a_link(tmp_path: Path) -> None:
    """ONNX Runtime may read them where onnx does not: then there is no float64, and no error either."""
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").mkdir()
    onnx.save(chain(1, 64), str(tmp_path / "real" / "m.onnx"), save_as_external_data=True, location="w.bin")
    for name in ("m.onnx", "w.bin"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / name)
    sample = {"x": normal(4, 64)}
    here = Reference(tmp_path / "real" / "m.onnx", 1)
    wrong = {"y": here.run(sample)["y"] + np.float32(0.5)}
    assert here.compare(wrong, sample).verdict == "different"
    try:
        there = Reference(tmp_path / "linked" / "m.onnx", 1)
    except Exception as error:  # noqa: BLE001  # this release of ONNX Runtime refuses too
        pytest.skip(f"ONNX Runtime does not read linked weights: {error}")
    assert there.compare(here.run(sample), sample).equal
    assert there.compare(wrong, sample).verdict == "different"


ARRAYS = st.one_of(
    hnp.arrays(np.float32, st.integers(1, 5), elements=st.floats(width=32)),
    hnp.arrays(np.int64, st.integers(1, 5), elements=st.integers(-(2**62), 2**62)),
    hnp.arrays(np.uint8, st.integers(1, 5)),
    hnp.arrays(np.bool_, st.integers(1, 5)),
)


@settings(deadline=None)
@given(arrays=st.lists(ARRAYS, min_size=1, max_size=3))
def test_other_inputs_are_of_the_same_kind(arrays: list[NDArray[Any]]) -> None:
    sample = {f"i{place}": array for place, array in enumerate(arrays)}
    others = other_inputs(sample)
    for name, array in (others or {}).items():
        assert (array.dtype, array.shape) == (sample[name].dtype, sample[name].shape)
        same = len(np.unique(sample[name])) == 1
        if array.dtype.kind in "iu" and not same:
            assert array.min() >= sample[name].min()
            assert array.max() <= sample[name].max()


def test_a_single_index_becomes_a_neighbour() -> None:
    others = other_inputs({"id": np.array([5]), "first": np.array([0])})
    assert others is not None
    assert {name: array.tolist() for name, array in others.items()} == {"id": [4], "first": [1]}
    with_image = other_inputs({"mask": np.ones(4, np.int64), "image": normal(8)})
    assert with_image is not None
    assert with_image["mask"].tolist() == [1, 1, 1, 1]
    assert other_inputs({}) is None


def test_inputs_that_the_model_refuses_are_left_out_of_it() -> None:
    """A neighbour of the only index there is."""
    graph = helper.make_graph(
        [node("Gather", ["t", "i"], ["y"])],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [1])],
        [numpy_helper.from_array(np.array([4.0], np.float32), "t")],
    )
    one = reference(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    sample = {"i": np.array([0])}
    assert one.expect(sample).other is None
    assert one.compare({"y": np.array([4.0], np.float32)}, sample).equal


def test_float64_of_both_evaluators() -> None:
    """Dense layers in ONNX Runtime, convolutions in onnx's own evaluator: nearer to numpy's float64 than float32 is."""
    sample = {"x": normal(4, 32)}
    wide = float64_results(chain(2, 32), sample)
    weights = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in chain(2, 32).graph.initializer
    }
    by_hand = np.tanh(np.tanh(sample["x"].astype(np.float64) @ weights["w0"]) @ weights["w1"])
    assert wide is not None
    assert np.abs(wide["y"] - by_hand).max() < 1e-14
    image = {"x": normal(1, 16, 12, 12)}
    found = float64_results(chaotic(1), image)
    assert found is not None
    assert found["y"].dtype == np.float64
    assert 0 < np.abs(found["y"] - reference(chaotic(1)).run(image)["y"]).max() < 1e-5


@pytest.mark.parametrize("opset", [8, 9, 13, 14, 15])
def test_batch_norm_in_float64_is_inference(opset: int) -> None:
    """onnx's evaluator mixes the sample's moments into it in some opsets."""
    moments: dict[str, Any] = {"m": normal(16) + 2, "v": np.abs(normal(16)) + 1, "s": normal(16), "b": normal(16)}
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"], momentum=0.9, epsilon=1e-5),
    ]
    made, sample = model(nodes, [1, 16, 6, 6], opset, w=normal(16, 16, 3, 3), **moments), {"x": normal(1, 16, 6, 6)}
    found = float64_results(made, sample)
    assert found is not None
    np.testing.assert_allclose(found["y"], reference(made).run(sample)["y"], rtol=1e-3, atol=1e-4)


def test_everything_becomes_wide() -> None:
    constants = [
        node("Constant", [], ["a"], value_float=1.5),
        node("Constant", [], ["b"], value_floats=[0.1, 0.2]),
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([1, 2], np.float16))),
        node("Cast", ["x"], ["h"], to=HALF),
        node("Cast", ["h"], ["f"], to=FLOAT),
        *(node("Add", [left, right], [name]) for left, right, name in ("fa1", "1b2", "2c3", "3wy")),
    ]
    narrow = model(constants, [2], w=np.array([3, 4], np.float32))
    before = narrow.SerializeToString()
    sample = {"x": np.array([1 / 3, 2 / 3], np.float32)}
    found = float64_results(narrow, sample)
    assert found is not None
    # 0.1 and 0.2 are float32's, for that is what the model says; nothing is rounded to half.
    exact = sample["x"].astype(np.float64) + 1.5 + np.array([0.1, 0.2], np.float32).astype(np.float64) + [1, 2] + [3, 4]
    assert np.abs(found["y"] - exact).max() < 1e-15
    assert narrow.SerializeToString() == before
    assert not computes_in_half(widened(narrow))


def test_no_float64_where_an_operator_is_unknown() -> None:
    strange = helper.make_node("Enigma", ["x"], ["y"], domain="nowhere")
    assert float64_results(model([strange], [2, 2]), {"x": normal(2, 2)}) is None


def test_a_detector_on_noise() -> None:
    """PP-OCRv4's sees nothing: its largest output is so small that ONNX Runtime's own sigmoid is 1e-3 of it off."""
    try:
        files = importlib.metadata.files("rapidocr-onnxruntime") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("rapidocr-onnxruntime cannot be installed for this Python")
    path = Path(str(next(file.locate() for file in files if str(file).endswith("ch_PP-OCRv4_det_infer.onnx"))))
    one, sample = Reference(path, 1), {"x": normal(1, 3, 96, 96)}
    exact = float64_results(onnx.load(str(path)), sample)
    assert exact is not None
    found = one.compare({name: array.astype(np.float32) for name, array in exact.items()}, sample)
    assert found.verdict != "different", found.sentence
