"""LSTM, GRU, RNN and DynamicQuantizeLSTM: many layers in one model, compared with ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.passes.compiled import schedule_messages
from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.import_onnx import import_onnx
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
RESULTS = {"LSTM": 3, "GRU": 2, "RNN": 2}
NUMBERS = {  # alpha and beta that are drawn
    "Affine": (0.8, 0.1),
    "Elu": (0.7, None),
    "HardSigmoid": (0.3, 0.4),
    "LeakyRelu": (0.2, None),
    "Relu": (None, None),
    "ScaledTanh": (0.9, 0.7),
    "Sigmoid": (None, None),
    "Softplus": (None, None),
    "Softsign": (None, None),
    "Tanh": (None, None),
    "ThresholdedRelu": (0.1, None),
}
STEPS, BATCH, WIDTH = 6, 3, 5
LENGTHS = np.array([4, 6, 0], np.int32)
Arrays = dict[str, NDArray[Any]]


class Network:
    """A model of recurrent layers that read the same inputs; results are called `NAME.0`, `NAME.1` and so on."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: Arrays = {}
        self.inputs: Arrays = {"x": self.array(STEPS, BATCH, WIDTH, scale=1.0), "lengths": LENGTHS}
        self.outputs: list[str] = []

    def array(self, *shape: int, scale: float = 0.5) -> NDArray[np.float32]:
        return self.random.normal(0.0, scale, shape).astype(np.float32)

    def layer(
        self,
        operator: str,
        hidden: int,
        direction: str = "forward",
        wanted: str = "111",
        optional: str = "bias lengths hidden cell peepholes",
        weights_are_inputs: bool = False,
        **attributes: Any,
    ) -> None:
        """Add a layer; `wanted` says of each result whether it is an output of the model."""
        name, ways, gates = f"l{len(self.nodes)}", 1 + (direction == "bidirectional"), GATES[operator]
        into = self.inputs if weights_are_inputs else self.weights
        into[f"{name}.w"] = self.array(ways, gates * hidden, WIDTH)
        into[f"{name}.r"] = self.array(ways, gates * hidden, hidden)
        shapes = {
            "bias": (ways, 2 * gates * hidden),
            "hidden": (ways, BATCH, hidden),
            "cell": (ways, BATCH, hidden),
            "peepholes": (ways, 3 * hidden),
        }
        inputs = ["x", f"{name}.w", f"{name}.r"]
        for place in ("bias", "lengths", "hidden", "cell", "peepholes")[: 5 if operator == "LSTM" else 3]:
            if place not in optional.split():
                inputs.append("")
            elif place == "lengths":
                inputs.append("lengths")
            else:
                inputs.append(f"{name}.{place}")
                target = self.inputs if place in ("hidden", "cell") else into
                target[inputs[-1]] = self.array(*shapes[place])
        flags = wanted[: RESULTS[operator]]
        results = [f"{name}.{place}" if flag == "1" else "" for place, flag in enumerate(flags)]
        while not results[-1]:
            results.pop()
        self.outputs += [result for result in results if result]
        self.nodes.append(
            helper.make_node(
                operator, inputs, results, name=name, hidden_size=hidden, direction=direction, **attributes
            )
        )

    def drawn(self, operator: str) -> None:
        """Add a layer whose attributes are drawn."""

        def some(*choices: Any) -> Any:
            return choices[self.random.integers(len(choices))]

        direction = some("forward", "reverse", "bidirectional")
        ways = 1 + (direction == "bidirectional")
        attributes: dict[str, Any] = {}
        if some(True, True, False):
            names = [some(*NUMBERS) for _ in range(ACTIVATIONS[operator] * ways)]
            if operator == "LSTM":  # what passes its gates has bounds, or six steps may reach infinity
                names[::3] = [some("HardSigmoid", "ScaledTanh", "Sigmoid", "Softsign", "Tanh") for _ in range(ways)]
            if operator == "RNN":  # ONNX Runtime deals an RNN's numbers to directions, whether they need them or not
                names = names[:1] * ways
            attributes["activations"] = names
            for place, key in enumerate(("activation_alpha", "activation_beta")):
                numbers = [NUMBERS[name][place] for name in names if NUMBERS[name][place] is not None]
                if numbers:
                    attributes[key] = numbers
        if some(True, False):
            attributes["clip"] = some(0.3, 1.0)
        if operator == "LSTM":
            attributes["input_forget"] = some(0, 1)
        if operator == "GRU":
            attributes["linear_before_reset"] = some(0, 1)
        optional = " ".join(
            name for name in ("bias", "lengths", "hidden", "cell", "peepholes") if some(True, True, False)
        )
        wanted = some("111", "100", "010", "011", "110")
        self.layer(operator, some(1, 7, 16, 24), direction, wanted, optional, some(False, False, True), **attributes)

    def model(self, dtype: str = "float32") -> onnx.ModelProto:
        def typed(array: NDArray[Any]) -> NDArray[Any]:
            return array.astype(dtype) if array.dtype == np.float32 else array

        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            self.nodes,
            "recurrent",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(typed(array).dtype), list(array.shape)
                )
                for name, array in self.inputs.items()
            ],
            [helper.make_tensor_value_info(name, element, None) for name in self.outputs],
            [numpy_helper.from_array(typed(array), name) for name, array in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def expected(self) -> Arrays:
        """What ONNX Runtime, not optimising, computes in float32."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(self.model().SerializeToString(), options, ["CPUExecutionProvider"])
        found = session.run(self.outputs, {value.name: self.inputs[value.name] for value in session.get_inputs()})
        return dict(zip(self.outputs, found, strict=True))


def compiled(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> tuple[Arrays, Any]:
    """Results, and the graph of primitives."""
    cluster = parse_cluster('[[device]]\nname = "d"\nthreads = 1\n')
    with schedule_messages() as messages:
        state = driver.compile(driver.plan(driver.front(model), cluster))
    assert not messages
    with run_in_process(state.bundle) as pipe:
        names = {spec.name for spec in state.bundle.manifest.model.inputs}
        return pipe.run({name: array for name, array in inputs.items() if name in names}), state.graph


def assert_equal(found: Arrays, expected: Arrays, relative: float = 1e-4) -> None:
    """Within the tolerance of docs/equality.md, and not of zeros or nothing."""
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert np.abs(wanted).max() > 0, name
        limit = relative * np.abs(wanted).max() + 1e-6
        np.testing.assert_allclose(found[name], wanted, atol=limit, rtol=0, err_msg=name)


@pytest.mark.parametrize("operator", GATES)
def test_layers_with_drawn_attributes(operator: str) -> None:
    """Ten layers, of which each is one primitive and knows its node."""
    network = Network(len(operator) * 1000 + ord(operator[0]))
    for activation in ACTIVATIONS_OF_FIRST_LAYERS[operator]:
        network.layer(operator, 17, "bidirectional", **activation)
    for _ in range(8):
        network.drawn(operator)
    found, graph = compiled(network.model(), network.inputs)
    assert_equal(found, network.expected())
    layers = [primitive for primitive in graph.primitives if operator.lower() in primitive.operators]
    assert sorted(primitive.onnx_nodes for primitive in layers) == sorted((node.name,) for node in network.nodes)


ACTIVATIONS_OF_FIRST_LAYERS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [{}, {"activations": ["Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign", "Tanh"]}],
    "GRU": [{"linear_before_reset": 1}, {"activations": ["Sigmoid", "Tanh", "HardSigmoid", "Softsign"]}],
    "RNN": [{}, {"activations": ["Tanh", "Relu"]}],
}


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 1e-2), ("float64", 1e-5)])
def test_other_types_and_the_batch_first(dtype: str, relative: float) -> None:
    """ONNX Runtime has neither: the same layers in float32 with the steps first."""
    network = Network(7)
    network.layer("LSTM", 20, "bidirectional", weights_are_inputs=True)
    network.layer("GRU", 16, "reverse", linear_before_reset=1)
    network.layer("GRU", 16)
    network.layer("RNN", 8, activations=["Softplus"], optional="bias hidden")
    expected = network.expected()
    for node in network.nodes:
        node.attribute.append(helper.make_attribute("layout", 1))
    turned = {"x"} | {name for name in network.inputs if name.endswith((".hidden", ".cell"))}
    for name in turned:
        network.inputs[name] = np.ascontiguousarray(network.inputs[name].swapaxes(0, 1))
    model = network.model(dtype)
    inputs = {
        name: array.astype(dtype) if array.dtype == np.float32 else array for name, array in network.inputs.items()
    }
    found, _ = compiled(model, inputs)
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    for name, array in found.items():
        axes = (2, 0, 1, 3)[: array.ndim] if name.endswith(".0") else (1, 0, 2)
        # Y: [batch, steps, ways, hidden]; states: [batch, ways, hidden]
        found[name] = array.transpose((1, 2, 0, 3) if name.endswith(".0") else axes)
    assert_equal(found, expected, relative)


def quantised(network: Network, name: str, rows: int, columns: int, ways: int, kind: Any, by_column: bool) -> list[str]:
    """Adds an 8-bit weight, its scale and its zero point; returns their names.

    Signed ones have 7 bits: without VNNI, ONNX Runtime adds two products in 16 bits that saturate.
    """
    low, high = (-64, 64) if kind is np.int8 else (0, 256)
    network.weights[name] = network.random.integers(low, high, (ways, rows, columns)).astype(kind)
    shape = (ways, columns) if by_column else (ways,)
    network.weights[f"{name}.scale"] = network.random.uniform(0.002, 0.004, shape).astype(np.float32)
    network.weights[f"{name}.zero"] = np.full(shape, 0 if kind is np.int8 else 129, kind)
    return [name, f"{name}.scale", f"{name}.zero"]


def test_dynamically_quantised_lstm() -> None:
    """Signed and unsigned weights, scales for each direction and each column, all optional inputs."""
    network = Network(11)
    for place, (hidden, ways, kind, by_column) in enumerate(
        [(24, 1, np.int8, False), (20, 2, np.uint8, False), (16, 2, np.int8, True)]
    ):
        name = f"q{place}"
        w = quantised(network, f"{name}.w", WIDTH, 4 * hidden, ways, kind, by_column)
        r = quantised(network, f"{name}.r", hidden, 4 * hidden, ways, kind, by_column)
        extra = [f"{name}.b", "lengths", f"{name}.h", f"{name}.c", f"{name}.p"] if place else ["", "", "", "", ""]
        if place:
            network.weights[f"{name}.b"] = network.array(ways, 8 * hidden)
            network.weights[f"{name}.p"] = network.array(ways, 3 * hidden)
            for state in ("h", "c"):
                network.inputs[f"{name}.{state}"] = network.array(ways, BATCH, hidden)
        results = [f"{name}.{result}" for result in range(3)]
        network.outputs += results
        network.nodes.append(
            helper.make_node(
                "DynamicQuantizeLSTM",
                ["x", w[0], r[0], *extra, *w[1:], *r[1:]],
                results,
                name=name,
                domain="com.microsoft",
                hidden_size=hidden,
                direction="bidirectional" if ways == 2 else "forward",
            )
        )
    found, graph = compiled(network.model(), network.inputs)
    assert_equal(found, network.expected())
    kernels = [primitive for primitive in graph.primitives if "lstm" in primitive.operators]
    assert kernels[0].weight_bytes < 2 * 24 * 4 * 32  # recurrent weights stay in 8 bits


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"activations": ["Sigmoid", "Tanh"]}, "2 activations; 3 are needed"),
        ({"activations": ["Sigmoid", "Tanh", "Cosine"]}, "activation 'cosine'; allowed: affine, elu, "),
    ],
)
def test_what_is_not_an_lstm_is_refused(attributes: dict[str, Any], reason: str) -> None:
    network = Network(1)
    network.layer("LSTM", 8, **attributes)
    with pytest.raises(UnsupportedModelError, match=f"cannot import node 'l0' \\(LSTM\\): {reason}"):
        import_onnx(network.model(), {}, {})
