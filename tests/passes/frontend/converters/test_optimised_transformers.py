"""Transformers as ONNX Runtime's optimiser and onnxruntime-genai write them: right, in few primitives, over devices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import GraphWriter
from tests.passes.compiled import check, model_of, normal
from tests.passes.frontend.converters.contrib import Case, constant, model_of_cases
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.folding.fold_static import fold_static
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.frontend.read_model import read_model
from tvmpipe.passes.options import BuildOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

TWO_DEVICES = "".join(f'[[device]]\nname = "{name}"\nthreads = 1\n' for name in "ab")
MICROSOFT = {"domain": "com.microsoft"}


class _Writer(GraphWriter):
    """Biases first, as the optimiser wants them."""

    def linear(self, x: str, inside: int, outside: int) -> str:
        bias = self.normal(outside, std=0.3)
        return self.op("Add", bias, self.op("MatMul", x, self.normal(inside, outside, std=inside**-0.5)))


def bert_like(layers: int = 1, tokens: int = 9, width: int = 32, heads: int = 2) -> onnx.ModelProto:
    """Embeddings, a mask of 0 and 1, and encoder layers, in the nodes that torch.onnx writes for BERT."""
    net = _Writer("bert_like", 3)
    ids, mask, types = (
        net.input(name, ["batch", tokens], TensorProto.INT64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    words, kinds = (
        net.op("Gather", net.normal(extent, width, std=0.5), source, axis=0)
        for extent, source in ((50, ids), (2, types))
    )
    places = net.op("Gather", net.normal(tokens, width, std=0.5), net.constant(np.arange(tokens)[None]), axis=0)
    x = net.layer_norm(net.op("Add", net.op("Add", words, kinds), places), width)
    wide = net.op("Unsqueeze", net.op("Unsqueeze", mask, net.ints(1)), net.ints(2))
    one, large = (net.constant(np.array(number, np.float32)) for number in (1.0, -1e4))
    bias = net.op("Mul", net.op("Sub", one, net.op("Cast", wide, to=TensorProto.FLOAT)), large)
    for _ in range(layers):
        x = net.layer_norm(net.op("Add", net.attention(x, tokens, width, heads, bias), x), width)
        hidden = net.gelu(net.linear(x, width, 4 * width))
        x = net.layer_norm(net.op("Add", net.linear(hidden, 4 * width, width), x), width)
    return net.model({"y": x}, {"y": [2, tokens, width]})


def over_two_devices(model: onnx.ModelProto, sample: dict[str, Any], dims: dict[str, int]) -> tuple[str, ...]:
    """Compile for two devices, both used; compare; the operators of all primitives."""
    fused = driver.front(model, ImportOptions(dims=dims, fallback=False, stateful=False))
    names = [primitive.name for primitive in fused.graph.primitives]
    pins = {name: "ab"[place >= len(names) // 2] for place, name in enumerate(names)}
    compiled = driver.compile(driver.plan(fused, parse_cluster(TWO_DEVICES), BuildOptions(pins=pins)))
    assert set(compiled.bundle.manifest.plans[0].devices) == set("ab")
    with run_in_process(compiled.bundle) as pipe:
        found = Reference(model.SerializeToString(), threads=1).compare(pipe.run(sample), sample)
    assert found.equal, found.sentence
    return tuple(name for primitive in compiled.graph.primitives for name in primitive.operators)


def test_bert_of_the_optimiser(tmp_path: Path) -> None:
    """Attention with lengths for masks, and norms of sums: one primitive each."""
    from onnxruntime.transformers.optimizer import optimize_model

    path = tmp_path / "bert.onnx"
    onnx.save(bert_like(), path)
    optimised = optimize_model(str(path), model_type="bert", num_heads=2, hidden_size=32, opt_level=0)
    optimised.save_model_to_file(str(path))
    model = onnx.load(path)
    counted = Counter(node.op_type for node in model.graph.node)
    assert (counted["Attention"], counted["SkipLayerNormalization"], counted["BiasGelu"]) == (1, 2, 1)
    random = np.random.default_rng(0)
    mask = np.ones((2, 9), np.int64)
    mask[1, 6:] = 0
    sample = {
        "input_ids": random.integers(0, 50, (2, 9)),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, 2, (2, 9)),
    }
    operators = Counter(over_two_devices(model, sample, {"batch": 2}))
    assert (operators["attention"], operators["layer_norm"], operators["softmax"]) == (1, 3, 0)


def decoder_like(layers: int = 1, width: int = 32, heads: int = 4, groups: int = 2) -> onnx.ModelProto:
    """One step of a Llama in the nodes of onnxruntime-genai, with a cache that has room for twelve tokens."""
    depth, room = 16, 12
    net = GraphWriter("decoder_like", 5)
    ids = net.input("input_ids", [1, 1], TensorProto.INT64)
    mask = net.input("attention_mask", [1, "total"], TensorProto.INT64)
    ends = net.op("ReduceSum", mask, net.ints(1), keepdims=0)
    ends = net.op("Cast", net.op("Sub", ends, net.ints(1)), to=TensorProto.INT32)
    total = net.op("Gather", net.op("Shape", mask), net.constant(np.array(1)), axis=0)
    total = net.op("Cast", total, to=TensorProto.INT32)
    angles = np.arange(room)[:, None] / 10 ** np.linspace(0, 2, depth // 2)
    caches = [net.constant(table.astype(np.float32)) for table in (np.cos(angles), np.sin(angles))]
    x = net.op("Gather", net.normal(50, width, std=0.5), ids, axis=0)
    shapes: dict[str, list[int]] = {"logits": [1, 1, 50]}
    results: list[str] = []
    normed = net.op("SimplifiedLayerNormalization", x, net.normal(width, std=1.0), axis=-1, epsilon=1e-5)
    for layer in range(layers):
        merged = net.op("MatMul", normed, net.normal(width, (heads + 2 * groups) * depth, std=width**-0.5))
        past = [net.input(f"past.{layer}.{name}", [1, groups, room, depth]) for name in ("key", "value")]
        present = [f"present.{layer}.{name}" for name in ("key", "value")]
        inputs = [merged, "", "", *past, ends, total, *caches]
        attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": groups, "do_rotary": 1, **MICROSOFT}
        net.nodes.append(helper.make_node("GroupQueryAttention", inputs, [f"a{layer}", *present], **attributes))
        shapes |= {name: [1, groups, room, depth] for name in present}
        results += present
        projected = net.op("MatMul", f"a{layer}", net.normal(heads * depth, width, std=0.2))
        outputs = [f"n{layer}", "", "", f"s{layer}"]
        scale = net.normal(width, std=1.0)
        net.nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization", [x, projected, scale], outputs, epsilon=1e-5, **MICROSOFT
            )
        )
        gate = net.op(
            "QuickGelu", net.op("MatMul", f"n{layer}", net.normal(width, 64, std=0.2)), alpha=1.0, **MICROSOFT
        )
        up = net.op("MatMul", f"n{layer}", net.normal(width, 64, std=0.2))
        down = net.op("MatMul", net.op("Mul", gate, up), net.normal(64, width, std=0.1))
        x = net.op("Add", f"s{layer}", down)
        normed = net.op("SimplifiedLayerNormalization", x, net.normal(width, std=1.0), axis=-1, epsilon=1e-5)
    model = net.model({"logits": net.op("MatMul", normed, net.normal(width, 50, std=0.3))}, shapes)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in results)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def test_a_step_of_a_decoder() -> None:
    """The cache comes in and goes out; how much of it counts is data, how long it may become is known."""
    random = np.random.default_rng(1)
    model = decoder_like()
    sample: dict[str, Any] = {"input_ids": np.array([[7]]), "attention_mask": np.ones((1, 6), np.int64)}
    sample |= {
        value.name: random.standard_normal((1, 2, 12, 16)).astype(np.float32)
        for value in model.graph.input
        if value.name.startswith("past")
    }
    operators = Counter(over_two_devices(model, sample, {"total": 6}))
    assert (operators["attention"], operators["rms_norm"], operators["softmax"]) == (1, 3, 0)


def test_a_block_of_a_transformer() -> None:
    """A norm of a sum, a GELU behind a bias, and a product with a factor."""
    nodes = [
        helper.make_node("SkipLayerNormalization", ["x", "r", "g", "b"], ["h"], epsilon=1e-5, **MICROSOFT),
        helper.make_node("MatMul", ["h", "W"], ["m"]),
        helper.make_node("FastGelu", ["m", "bias"], ["f"], **MICROSOFT),
        helper.make_node("FusedMatMul", ["f", "V"], ["y"], transB=1, alpha=0.5, **MICROSOFT),
    ]
    weights = {"g": normal(1, 32), "b": normal(2, 32), "W": normal(3, 32, 64), "bias": normal(4, 64)}
    model = model_of(nodes, {"x": [1, 6, 32], "r": [1, 6, 32]}, {**weights, "V": normal(5, 16, 64)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert "layer_norm" in check(model)


def test_shapes_behind_nodes_of_other_domains_are_known() -> None:
    """[0, 0, heads, size] and what is computed from a shape: the reshape is left, with a constant."""
    attention = Case(
        "Attention", [normal(1, 2, 5, 8), constant(normal(2, 8, 24)), constant(normal(3, 24))], {"num_heads": 2}
    )
    nodes = [
        helper.make_node("Shape", ["r0.0"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["outer"]),
        helper.make_node("Concat", ["outer", "inner"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["r0.0", "wanted"], ["split"]),
        helper.make_node("Reshape", ["split", "again"], ["y"]),
    ]
    numbers = {"zero": [0], "two": [2], "inner": [2, -1], "again": [0, 0, 4, 2]}
    model, _ = model_of_cases([attention])
    model.graph.initializer.extend(numpy_helper.from_array(np.array(array), name) for name, array in numbers.items())
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="y"))
    found = fold_static(model)
    assert [node.op_type for node in found.graph.node] == ["Attention", "Reshape", "Reshape"]
    assert [dim.dim_value for dim in found.graph.output[0].type.tensor_type.shape.dim] == [2, 5, 4, 2]


def test_what_a_node_of_another_domain_makes_of_constants_is_computed() -> None:
    case = Case("FusedMatMul", [constant(np.eye(3)), constant(np.ones((3, 3)))], {"alpha": 2.0})
    model, _ = model_of_cases([case])
    model.graph.node.append(helper.make_node("Add", ["x", "r0.0"], ["y"]))
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3]))
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="y"))
    found = fold_static(model)
    assert [node.op_type for node in found.graph.node] == ["Add"]
    np.testing.assert_array_equal(numpy_helper.to_array(found.graph.initializer[0]), np.full((3, 3), 2))


def test_layer_norm_of_an_opset_that_has_none() -> None:
    """ONNX Runtime's optimiser writes it into models of any opset."""
    node = helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=-1)
    model = model_of([node], {"x": [3, 20]}, {"scale": normal(1, 20), "shift": normal(2, 20)}, opset=12)
    assert check(model) == ("layer_norm",)


def test_a_domain_that_a_file_uses_and_does_not_import() -> None:
    """ONNX Runtime runs such files, and its optimiser makes them."""
    model, _ = model_of_cases([Case("Gelu", [normal(1, 3)])])
    del model.opset_import[1:]
    read, _, _ = read_model(model)
    assert [entry.domain for entry in read.opset_import] == ["", "com.microsoft"]
