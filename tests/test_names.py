"""Names that exporters write, and some that nobody should, go through every command, file and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tests.test_cli import sentence, tvmpipe
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalCluster

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SCOPED, MARKED, BOTH = "/encoder/layer.0::in put", "<b>&\"'", "x::0/twin"
CHINESE, UP, BRACKETS = "漢字 ü", "../../etc/passwd", "[red]?*{a}"
TERMINAL = "\x1b[31m\nsecond line\u202e"
QUOTED = 'it\'s "quoted" \\ # : - ~'
DIMENSION = "batch <size>::0"
LONG = "long." * 80
NODES = (MARKED, BOTH, "twin", CHINESE, UP, BRACKETS, TERMINAL, QUOTED, "null", "yes: {no}", "1e3", LONG)


def model() -> onnx.ModelProto:
    """Open along one dimension; `BOTH` is a node, an input and nearly the name of what another node makes."""
    weights = {f"w{UP}": np.random.default_rng(0).normal(0, 0.3, (8, 8)), MARKED + "w": np.linspace(-1, 1, 8)}
    nodes = [
        helper.make_node("Add", [SCOPED, BOTH], [TERMINAL], name=MARKED),
        helper.make_node("MatMul", [TERMINAL, f"w{UP}"], [BOTH + "/1"], name=BOTH),
        helper.make_node("Tanh", [BOTH + "/1"], ["twin"], name="twin"),
        helper.make_node("MatMul", ["twin", f"w{UP}"], ["twin.1"], name="twin.1"),
        helper.make_node("Tanh", ["twin.1"], [""" {"a": 1} """], name=CHINESE),
        helper.make_node("MatMul", [""" {"a": 1} """, f"w{UP}"], ["m"], name=UP),
        helper.make_node("Tanh", ["m"], ["n"], name=BRACKETS),
        helper.make_node("MatMul", ["n", f"w{UP}"], ["o"], name=TERMINAL),
        helper.make_node("Tanh", ["o"], ["p"]),
        helper.make_node("MatMul", ["p", f"w{UP}"], ["q"], name="null"),
        helper.make_node("Tanh", ["q"], ["r"], name="yes: {no}"),
        helper.make_node("MatMul", ["r", f"w{UP}"], ["s"], name="1e3"),
        helper.make_node("Add", ["s", MARKED + "w"], ["u"], name=LONG),
        helper.make_node("Relu", ["u"], [CHINESE]),
        helper.make_node("NonZero", [CHINESE], [UP], name=QUOTED),
    ]
    inputs = [helper.make_tensor_value_info(name, FLOAT, [DIMENSION, 8]) for name in (SCOPED, BOTH)]
    outputs = [(CHINESE, FLOAT), (UP, INT64)]
    graph = helper.make_graph(
        nodes,
        "<script>graph</script>",
        inputs,
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def no_orders(text: str) -> str:
    """What a terminal or a person gets holds no character that a terminal would obey."""
    assert not set(text) & set("\x1b\u202e"), text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names <i>&")
    onnx.save(model(), folder / "<b>model ü.onnx")
    devices = ("alpha", "beta")
    (folder / "cluster.toml").write_text("".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in devices))
    return folder


def options(folder: Path) -> list[object]:
    return [
        folder / "<b>model ü.onnx",
        "--dim",
        f"{DIMENSION}=3",
    ]


def test_commands_that_only_read(folder: Path) -> None:
    shown, _ = tvmpipe("show", *options(folder))
    assert "'yes: {no}'" not in no_orders(shown)
    facts = json.loads(tvmpipe("show", *options(folder), "--json")[0])
    assert {node for one in facts["primitives"] for node in one["onnx_nodes"]} >= {*NODES}
    assert [spec["name"] for spec in facts["inputs"]] == [SCOPED, BOTH]


def test_names_in_options(folder: Path) -> None:
    model, *_ = options(folder)
    opened = ["--bucket", f"{DIMENSION}=2,3", "--pad", f"{SCOPED}=0", "--pad", f"{BOTH}=0"]
    facts = json.loads(tvmpipe("show", model, *opened, "--json")[0])
    assert [one["extents"] for one in facts["buckets"]] == [{DIMENSION: 3}, {DIMENSION: 2}]
    np.save(folder / "value <ü>.npy", np.ones((3, 8), np.float32))
    fixed = ["--shape", f"{SCOPED}=3,8", "--value", f"{BOTH}=@{folder / 'value <ü>.npy'}"]
    facts = json.loads(tvmpipe("show", model, *fixed, "--json")[0])
    assert [spec["name"] for spec in facts["inputs"]] == [SCOPED]


@pytest.fixture(scope="module")
def planned(folder: Path) -> tuple[Path, dict[str, Any]]:
    plan, cluster = folder / "plan ü.yaml", folder / "cluster.toml"
    pins = [f"{name}=alpha" for name in (BOTH, CHINESE, UP)] + [f"{name}=beta" for name in (QUOTED, "1e3", "null")]
    asked = [word for pin in pins for word in ("--pin", pin)]
    command = ["plan", *options(folder), "--cluster", cluster, "--time-limit", 1, *asked, "-o", plan, "--json"]
    return plan, json.loads(tvmpipe(*command)[0])


def test_a_plan_file_is_followed(folder: Path, planned: tuple[Path, dict[str, Any]]) -> None:
    plan, facts = planned
    text = no_orders(plan.read_text(encoding="utf-8"))
    read = yaml.safe_load(text)
    assert read["placement"] == facts["placement"]
    assert QUOTED in read["onnxruntime"]
    out, _ = tvmpipe(
        "explain", *options(folder), "--cluster", folder / "cluster.toml", "--plan", plan, "--time-limit", 1
    )
    no_orders(out)


def test_from_the_file_to_results(folder: Path, planned: tuple[Path, dict[str, Any]], agents: LocalCluster) -> None:
    bundle, trace = folder / "<b>bundle", folder / "trace ü.json"
    command = ["compile", *options(folder), "--cluster", folder / "cluster.toml", "--plan", planned[0], "-o", bundle]
    no_orders("".join(tvmpipe(*command)))
    assert yaml.safe_load((bundle / "plan.yaml").read_text(encoding="utf-8")) == yaml.safe_load(
        planned[0].read_text(encoding="utf-8")
    )
    page = no_orders((bundle / "report.html").read_text(encoding="utf-8"))
    assert not any(tag in page for tag in ("<b>", "<script", "<i>"))
    generator = np.random.default_rng(1)
    sample = {name: generator.normal(size=(3, 8)).astype(np.float32) for name in (SCOPED, BOTH)}
    np.savez(folder / "in ü.npz", allow_pickle=False, **sample)
    found, _ = tvmpipe(
        *("run", bundle, "--tracker", agents.tracker, "--input", folder / "in ü.npz", "--output", folder / "out.npz"),
        *("--trace", trace, "--event-log", folder / "events.log"),
    )
    no_orders(found)
    with np.load(folder / "out.npz") as results:
        have = {name: results[name] for name in (CHINESE, UP)}
    assert Reference(model().SerializeToString()).compare(have, sample).equal
    nodes = {
        node for event in json.loads(trace.read_text())["traceEvents"] for node in event["args"].get("onnx_nodes", ())
    }
    assert nodes >= {*NODES}


@pytest.mark.parametrize("name", [TERMINAL, CHINESE, "../x", "a=b"])
def test_mistakes_are_one_line(folder: Path, name: str) -> None:
    for option in ("--dim", "--shape", "--value", "--pad", "--bucket"):
        _, err = tvmpipe("show", *options(folder), option, f"{name}=3", code=1)
        assert "\n" not in sentence(no_orders(err))
