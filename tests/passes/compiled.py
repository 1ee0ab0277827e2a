"""Small models around one operator, compiled as one stage, run here and compared with ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import parse_cluster

Arrays = Mapping[str, NDArray[Any]]
BATCHES = st.integers(1, 8)
SIZES = st.one_of(st.integers(1, 48), st.sampled_from((1, 2, 13, 15, 16, 17, 31, 33, 47, 64, 97)))


def few(examples: int) -> settings:
    """So many examples, the same in every run: each one compiles a model."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int]],
    weights: Arrays | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Float32 `inputs` of the given shapes -> "y"; floating-point `weights` become float32."""
    initializers = [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)
        for name, array in (weights or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "case",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 21 else 11)


def model_of_arrays(
    nodes: Sequence[onnx.NodeProto], inputs: Arrays, output: int, weights: Mapping[str, ArrayLike] | None = None
) -> onnx.ModelProto:
    """`inputs` and `weights` of the arrays' own shapes and types -> "y" of the element type `output`; opset 17."""
    graph = helper.make_graph(
        list(nodes),
        "case",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def normal(seed: int, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    """Seeded normal numbers."""
    return np.random.default_rng((seed, *shape)).normal(0.0, scale, shape).astype(np.float32)


def sample_of(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Seeded normal inputs."""
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input}
    return {name: normal(place, *shape) for place, (name, shape) in enumerate(shapes.items(), start=100)}


@contextmanager
def schedule_messages() -> Iterator[list[str]]:
    """What the scheduler says of primitives that their own rule cannot take."""
    messages: list[str] = []
    logger = logging.getLogger("tvmpipe.passes.kernels.schedule")
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def runnable(name: str) -> bool:
    """Whether this machine runs code for a target."""
    return find_target("native").runs(find_target(name))


def check(
    model: onnx.ModelProto,
    sample: Arrays | None = None,
    target: str = "native",
    threads: int = 1,
) -> tuple[str, ...]:
    """Compile, run, compare; returns all operators in the order they run.

    No kernel may be left to the general rule. Shapes that are drawn may prove nothing: a softmax of one number, say.
    """
    cluster = parse_cluster(f'[[device]]\nname = "d"\ntarget = "{target}"\nthreads = {threads}\n')
    with schedule_messages() as messages:
        state = driver.compile(driver.plan(driver.front(model, ImportOptions(fallback=False)), cluster))
    sample = sample_of(model) if sample is None else sample
    with run_in_process(state.bundle) as pipe:
        have = pipe.run(sample)
    found = Reference(model.SerializeToString(), threads=1).compare(have, sample)
    operators = tuple(name for primitive in state.graph.primitives for name in primitive.operators)
    assert not messages, f"{messages}; operators {operators}"
    assert found.verdict != "different", f"{found.sentence}; operators {operators}"
    return operators
