"""Sessions that stand in for ONNX Runtime's: what a package gets, and what is kept of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.shipped.__main__ import CASES, run
from benchmarks.shipped.case import Case, Folder, first
from benchmarks.shipped.session import Recorder


def scaled(path: Path) -> None:
    """`y = x * 2 * rate`, `x` of any length."""
    nodes = [helper.make_node("Mul", ["x", "rate"], ["m"]), helper.make_node("Add", ["m", "m"], ["y"])]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("rate", TensorProto.FLOAT, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])]
    graph = helper.make_graph(nodes, "scaled", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def test_a_session_answers_and_is_compared(tmp_path: Path) -> None:
    scaled(tmp_path / "scaled.onnx")
    recorder = Recorder(frozenset({"rate"}))
    real = onnxruntime.InferenceSession
    feed = {"x": np.arange(4, dtype=np.float32), "rate": np.asarray(1.5, np.float32)}
    with recorder.standing_in():
        session = onnxruntime.InferenceSession(str(tmp_path / "scaled.onnx"))
        (result,) = session.run(["y"], feed)
        assert [one.name for one in session.get_inputs()] == ["x", "rate"]
    assert onnxruntime.InferenceSession is real
    np.testing.assert_array_equal(result, [0, 3, 6, 9])
    (used,) = recorder.used.values()
    assert [one.verdict for one in used.found] == ["equal"]
    assert used.nodes > 0
    assert not used.left
    recorder.plain = True
    np.testing.assert_array_equal(session.run(None, feed)[0], result)
    assert len(used.found) == 1


def test_what_becomes_of_a_case(tmp_path: Path) -> None:
    scaled(tmp_path / "scaled.onnx")
    seen = iter(["one thing", "another"])

    def answer(folder: Folder) -> str:
        first(folder.session("scaled.onnx"), {"x": np.ones(4, np.float32), "rate": np.asarray(3.0, np.float32)})
        return next(seen)

    outcome = run(Case("package", {"scaled.onnx": "a product"}, answer), Folder(tmp_path))
    assert [row.verdict for row in outcome.rows] == ["different"]
    assert outcome.rows[0].sentence == "a person sees 'one thing', with ONNX Runtime 'another'"
    missing = run(Case("package", {"none.onnx": "a product"}, answer), Folder(tmp_path))
    assert [row.verdict for row in missing.rows] == ["missing"]


def test_each_case_has_a_name_of_its_own_and_each_file_one_case() -> None:
    assert not [name for name, count in Counter(case.name for case in CASES).items() if count > 1]
    assert not [file for file, count in Counter(file for case in CASES for file in case.files).items() if count > 1]
