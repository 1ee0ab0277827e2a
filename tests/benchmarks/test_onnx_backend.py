"""tvmpipe behind the onnx package's backend interface, and the table of its node tests."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as node_tests
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

import tvmpipe
from benchmarks.onnx_backend import cases
from benchmarks.onnx_backend.__main__ import report
from benchmarks.onnx_backend.backend import prepare, run_model, run_node, supports_device
from benchmarks.onnx_backend.cases import Row, add_row, model_of, read_rows, row_of, run_case

CASES = {
    "test_and_bcast3v1d": "pass",
    "test_identity": "pass",
    "test_identity_sequence": "pass",
    "test_size_example": "pass",
    "test_slice": "constants",
    "test_nonzero_example": "fallback",
    "test_equal_string": "unsupported",
    "test_bernoulli": "random",
}
MODULES = ("and_", "bernoulli", "equal", "identity", "nonzero", "size", "slice")


@pytest.fixture(scope="module")
def given() -> dict[str, TestCase]:
    """Node tests by name; importing what makes all of them takes ten seconds."""
    for name in MODULES:
        importlib.import_module(f"{node_tests.__name__}.{name}")
    return {case.name: case for case in node_tests._NodeTestCases if case.name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_node_tests(given: dict[str, TestCase], name: str) -> None:
    case = given[name]
    assert case.data_sets is not None
    verdict, detail, own = run_case(model_of(case).SerializeToString(), case.data_sets, case.rtol, case.atol)
    assert (verdict, own) == (CASES[name], "")
    assert bool(detail) == (verdict != "pass")


def test_a_wrong_result_is_wrong(given: dict[str, TestCase]) -> None:
    """Another number, another type and another shape; too little of a half is right as we measure."""
    case = given["test_and_bcast3v1d"]
    assert case.data_sets is not None
    inputs, (wanted,) = case.data_sets[0]
    assert run_case(model_of(case).SerializeToString(), [(inputs, [~wanted])], 1e-3, 1e-7)[0] == "wrong"
    half = np.array([1, 0.5], np.float16)
    assert not list(cases._judge([half], [half], 1e-3, 1e-7))
    assert list(cases._judge([half], [np.array([1, 0.504], np.float16)], 1e-3, 1e-7)) == ["0.004 of 1 (float16)"]
    for changed in (half.astype(np.float32), half * 1.1, half[:1], np.array([1, np.nan], np.float16)):
        with pytest.raises(AssertionError):
            list(cases._judge([half], [changed], 1e-3, 1e-7))
    with pytest.raises(AssertionError):
        list(cases._judge([[half]], [half], 1e-3, 1e-7))


def test_one_node_and_one_model() -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0, 2], np.float32)
    (total,) = run_node(helper.make_node("Add", ["a", "b"], ["c"]), [a, b])
    np.testing.assert_array_equal(total, a + b)
    info = [(np.dtype(np.float32), (2, 3))]
    (older,) = run_node(helper.make_node("Relu", ["a"], ["c"]), [-a], outputs_info=info, opset_version=13)
    np.testing.assert_array_equal(older, np.zeros_like(a))
    shape = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(
        [helper.make_node("Neg", ["a"], ["c"])], "g", [shape], [helper.make_tensor_value_info("c", 1, ["N", 3])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    np.testing.assert_array_equal(run_model(model, [a])[0], -a)
    weight = numpy_helper.from_array(a[:1], "unread")  # files of old list their weights among the inputs
    model.graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1, 3]))
    model.graph.initializer.append(weight)
    rep = prepare(model)
    for part in (a, a[:1], a):
        np.testing.assert_array_equal(rep.run([part])[0], -part)


def test_what_is_refused_is_skipped_with_its_reason() -> None:
    text = helper.make_tensor_value_info("t", TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["t"], ["u"])], "g", [text], [text])
    graph.output[0].name = "u"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(BackendIsNotSupposedToImplementIt, match="elements of type string"):
        run_model(model, [np.array(["a"], object)])
    assert [supports_device(device) for device in ("CPU", "CUDA", "CUDA:0")] == [True, False, False]


def test_rows_are_kept_and_reported(tmp_path: Path, given: dict[str, TestCase]) -> None:
    path = tmp_path / "rows.jsonl"
    case = given["test_slice"]
    for row in (row_of(case, "wrong", "far off"), row_of(case, "constants", ""), Row("test_a", "A", "pass", own="0.1")):
        add_row(path, row)
    rows = read_rows(path)
    assert [(row.case, row.operator, row.verdict) for row in rows] == [
        ("test_slice", "Slice", "constants"),
        ("test_a", "A", "pass"),
    ]
    refused = [Row(f"test_{name}", "B", "unsupported", f"no kernel of '{name}'; see {name}") for name in "bc"]
    text = report([*rows, *refused], "in parts")
    assert "4 cases: 2 right by TVM (50.0%), 2 right with the nodes that ONNX Runtime runs (50.0%)." in text
    assert "  test_a: 0.1\nunsupported: no kernel of '...' (2):\n  test_b, test_c\nin parts\n" in text
    assert onnx.__version__ in text


def test_the_scoreboard_s_files_name_what_there_is() -> None:
    """Its image copies the backend's two files into a package of that name, in which they import each other."""
    folder = Path(cases.__file__).parent
    docker = (folder / "scoreboard" / "Dockerfile").read_text()
    assert 'ENV ONNX_BACKEND="tvmpipe_backend.backend"' in docker
    assert "COPY ./backends/tvmpipe /root/tvmpipe_backend" in docker
    entry = json.loads((folder / "scoreboard" / "config.json").read_text())["tvmpipe"]
    jobs = yaml.safe_load((folder / "scoreboard" / "job.yml").read_text())
    (download,) = yaml.safe_load((folder / "scoreboard" / "download.yml").read_text())
    (upload,) = [step for step in jobs["tvmpipe_stable"]["steps"] if "upload" in step.get("uses", "")]
    assert upload["with"]["name"] == download["with"]["name"]
    assert f"./{upload['with']['path']}".rstrip("/") == entry["results_dir"]
    assert f"-f {entry['dockerfile_link']}" in str(jobs)


def test_the_copied_files_are_a_backend(tmp_path: Path) -> None:
    package = tmp_path / "tvmpipe_backend"
    package.mkdir()
    for name in ("backend.py", "deciding_inputs.py"):
        shutil.copy(Path(cases.__file__).parent / name, package)
    ask = "import tvmpipe_backend.backend as b; print(b.supports_device('CPU'), b.prepare, b.run_model, b.run_node)"
    path = f"{tmp_path}:{Path(tvmpipe.__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith("True "), done.stderr
