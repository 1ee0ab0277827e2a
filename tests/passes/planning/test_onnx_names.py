"""Pins, plan files, reports, explanations and traces know ONNX nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.models import branchy, chain
from tvmpipe.errors import PlanError
from tvmpipe.passes import driver
from tvmpipe.passes.graph.node_names import primitives_called, show_nodes
from tvmpipe.passes.graph.replicas import show
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.plan import read_placement, resolve_pins, to_yaml
from tvmpipe.runtime.head.trace import chrome_events
from tvmpipe.targets.description.cluster import parse_cluster

CLUSTER = parse_cluster('[[device]]\nname = "a"\nthreads = 1\n[[device]]\nname = "b"\nthreads = 1\n')
CHAIN = driver.front(chain(3, 64)).graph
DENSE = list(CHAIN.by_name())  # each a dense layer and its tanh: dense0, dense1, dense2


def test_a_primitive_is_called_by_itself_by_a_node_or_by_a_pattern() -> None:
    assert primitives_called(CHAIN, DENSE[1]) == [DENSE[1]]
    assert primitives_called(CHAIN, "dense1") == [DENSE[1]]
    assert primitives_called(CHAIN, "Tanh:y") == [DENSE[2]]
    assert primitives_called(CHAIN, "dense[12]") == DENSE[1:]
    assert primitives_called(CHAIN, "*matmul*") == DENSE
    assert primitives_called(CHAIN, "conv*") == []


def test_pins_take_onnx_nodes() -> None:
    assert resolve_pins(CHAIN, {"dense0": "b", "dense[12]": "a"}) == dict(zip(DENSE, "baa", strict=True))
    with pytest.raises(PlanError, match="pin 'conv1' matches no primitive or ONNX node"):
        resolve_pins(CHAIN, {"conv1": "a"})
    with pytest.raises(PlanError, match=f"pins put {DENSE[2]} on both 'a' and 'b'"):
        resolve_pins(CHAIN, {"dense2": "a", "Tanh:y": "b"})
    planned = driver.plan(driver.front(branchy()), CLUSTER, BuildOptions(pins={"stem": "b", "Softmax:*": "a"}))
    primitives = planned.graph.by_name()
    placed = {node: planned.plan.placement[name] for name, one in primitives.items() for node in one.onnx_nodes}
    assert placed["stem"] == placed["Relu:r1"] == ("b",)
    assert placed["Softmax:scores"] == ("a",)


def placement(folder: Path, entries: dict[str, object]) -> dict[str, str]:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"placement": entries}))
    return {name: show(group) for name, group in read_placement(path, CHAIN, CLUSTER, "sha").items()}


def test_plan_files_take_onnx_nodes_and_patterns(tmp_path: Path) -> None:
    """What is named exactly goes before what is matched, in whatever order they stand."""
    found = placement(tmp_path, {"*": "a", "dense1": "b"})
    assert found == dict(zip(DENSE, "aba", strict=True))
    assert placement(tmp_path, {"dense1": "b", DENSE[1]: "a", "*": "b"}) == dict(zip(DENSE, "bab", strict=True))
    with pytest.raises(PlanError, match=f"puts {DENSE[0]} on both 'a' and 'b'"):
        placement(tmp_path, {"dense*": "a", "*0": "b", "*": "a"})
    with pytest.raises(PlanError, match="places 'conv', which is no primitive or ONNX node"):
        placement(tmp_path, {"conv": "a", "*": "a"})


def test_plan_files_and_reports_say_the_nodes() -> None:
    planned = driver.plan(driver.front(chain(3, 64)), CLUSTER, BuildOptions(pins={"dense2": "b", "dense0": "a"}))
    text = to_yaml(planned.plan, planned.graph, planned.signature.sha256)
    assert f"  {DENSE[0]}: a  # dense0, Tanh:t0\n" in text
    assert yaml.safe_load(text)["placement"][DENSE[2]] == "b"
    nodes = [node for stage in planned.report()["stages"] for node in stage["onnx_nodes"]]
    assert nodes == ["dense0", "Tanh:t0", "dense1", "Tanh:t1", "dense2", "Tanh:y"]


def test_many_nodes_are_shortened_and_none_can_write_to_a_terminal() -> None:
    assert show_nodes(()) == ""
    assert show_nodes(("a", "b", "c")) == "a, b, c"
    assert show_nodes(tuple("abcd")) == "a .. d (4 nodes)"
    assert show_nodes(("\x1b[31m",)) == "\\x1b[31m"


def test_traces_say_the_nodes_of_stages() -> None:
    spans = [("pi", ("compute", "s0", 3, 1.0, 2.0)), ("pi", ("send", "s0", 3, 2.0, 3.0))]
    events = [event for event in chrome_events(spans, {"s0": ("dense0", "Tanh:t0")}) if event["ph"] == "X"]
    assert [event["args"] for event in events] == [{"batch": 3, "onnx_nodes": ["dense0", "Tanh:t0"]}] * 2
