"""Random models, grown node by node on a sample, so that every shape and type is what ONNX Runtime makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from benchmarks.random_graphs.proposals import MAKERS, Pool, Proposal, Value
from tvmpipe.passes.frontend.folding.evaluate_node import evaluate

Array = NDArray[Any]

OPSET = 23
_MOST_ELEMENTS = 4096
_LARGEST = 1e4  # beyond, float32 sums of a few terms cancel to nothing
_SHAPES = ([2, 6, 9, 8], [1, 16, 7, 7], [3, 8, 10], [4, 12], [5, 3, 16], [7], [2, 4, 5, 6, 3])
_BARE = helper.make_model(
    helper.make_graph([], "", [], []), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
)


@dataclass(frozen=True)
class RandomModel:
    """A model, the sample that it was grown on, and how often it has each operator."""

    model: onnx.ModelProto
    sample: Mapping[str, Array]
    operators: Counter[str]


def random_model(seed: int, nodes: int, *, every: bool = False) -> RandomModel:
    """A model of about so many nodes, the same for the same seed. With `every` all values are results, to find the
    node that is to blame where a result is wrong."""
    random = np.random.default_rng(seed)
    floats = random.choice(np.array(["float32"] * 8 + ["float64", "float16"]))
    values: list[Value] = []
    pool = Pool(random, values)
    for number in range(int(random.integers(1, 4))):
        shape = pool.one_of(*_SHAPES)
        dtype = floats if random.random() < 0.8 else pool.one_of("int64", "int32", "bool", "uint8")
        values.append(Value(f"x{number}", pool.constant(shape, dtype), exact=True))
    inputs = list(values)
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    names = list(MAKERS)
    for _ in range(20 * nodes):
        if len(made) == nodes:
            break
        try:
            proposal = MAKERS[names[int(random.integers(len(names)))]](pool)
        except LookupError:
            continue
        found = _tried(proposal, len(made), values)
        if found is not None:
            node, constants, results = found
            made.append(node)
            weights += constants
            values += results
    read = {name for node in made for name in node.input}
    computed = values[len(inputs) :]
    wanted = [value for value in computed if every or value.name not in read] or computed[-1:]
    graph = helper.make_graph(
        made, "random", [_info(value) for value in inputs], [_info(value) for value in wanted], weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return RandomModel(model, {value.name: value.array for value in inputs}, Counter(node.op_type for node in made))


def _tried(
    proposal: Proposal, number: int, values: list[Value]
) -> tuple[onnx.NodeProto, list[onnx.TensorProto], list[Value]] | None:
    """The node, its constants and its results; None where it does not run, or nothing could be learned from it."""
    read: dict[str, Array] = {}
    names, weights, exact = [], [], True
    for place, one in enumerate(proposal.inputs):
        if one is None:
            names.append("")
            continue
        if isinstance(one, Value):
            name, array = one.name, one.array
            exact = exact and one.exact
        else:
            name, array = f"w{number}_{place}", np.asarray(one)
            weights.append(numpy_helper.from_array(array, name))
        names.append(name)
        read[name] = array
    if proposal.steps and not exact:
        return None
    results = [f"v{number}_{place}" for place in range(proposal.outputs)]
    node = helper.make_node(proposal.operator, names, results, name=f"n{number}", **proposal.attributes)
    arrays = evaluate(node, read, _BARE)
    if arrays is None or not all(_useful(array) for array in arrays):
        return None
    whole = all(array.dtype.kind in "iub" for array in (*read.values(), *arrays))
    as_exact = exact and (proposal.moves or whole)
    return node, weights, [Value(name, array, as_exact) for name, array in zip(results, arrays, strict=True)]


def _useful(array: Array) -> bool:
    if not 0 < array.size <= _MOST_ELEMENTS:
        return False
    return array.dtype.kind != "f" or bool(np.isfinite(array).all() and np.abs(array).max() < _LARGEST)


def _info(value: Value) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.array.dtype)
    return helper.make_tensor_value_info(value.name, kind, value.array.shape)
