"""Weights of few bits that only products read: they stay packed, and results are ONNX Runtime's, optimisations off."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tests.passes.compiled import schedule_messages
from tests.passes.frontend.converters.test_quantised import Nodes, in_onnxruntime
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.arithmetic.element_types import limits
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

DOMAIN: dict[str, Any] = {"domain": "com.microsoft", "kind": TensorProto.FLOAT}
CLUSTER = '[[device]]\nname = "d"\nthreads = 2\n'
KERNEL = "weight_only_matmul"
F = np.float32
Reals = dict[str, NDArray[np.float64]]


def compiled(made: Nodes) -> driver.Compiled:
    fused = driver.front(made.model(), ImportOptions(fallback=False))
    with schedule_messages() as messages:
        state = driver.compile(driver.plan(fused, parse_cluster(CLUSTER)))
    assert messages == []
    return state


def compare(made: Nodes, products: int, wanted: Reals) -> None:
    """Compile, run, compare: so many products are the kernel's. What is `wanted` is not asked of ONNX Runtime."""
    state = compiled(made)
    operators = [name for primitive in state.graph.primitives for name in primitive.operators]
    assert operators.count(KERNEL) == products, operators
    with run_in_process(state.bundle) as pipe:
        have = pipe.run(dict(made.feed))
    model = made.model()
    for place in reversed(range(len(model.graph.node))):
        if set(model.graph.node[place].output) & set(wanted):
            del model.graph.node[place]
    kept = [value for value in model.graph.output if value.name not in wanted]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    for name, array in {**in_onnxruntime(model, made.feed), **wanted}.items():
        assert have[name].shape == array.shape
        assert np.abs(have[name] - array).max() <= 2e-6 * np.abs(array).max(), name


def nbits(made: Nodes, x: str, n: int, bits: int, block: int, zeros: str = "") -> Reals:
    """A product with random columns, and what it is; `zeros` says which zero points it has: packed, floats, or none."""
    k, random, each = made.feed[x].shape[-1], made.random, 8 // bits
    blocks = -(-k // block)

    def unpacked(array: NDArray[np.uint8]) -> NDArray[Any]:
        fields = array[..., None] >> np.arange(0, 8, bits) & (1 << bits) - 1
        return fields.reshape(len(array), -1).astype(np.float64)

    packed = random.integers(0, 256, (n, blocks, block // each)).astype(np.uint8)
    scales = random.uniform(0.01, 0.1, (n, blocks)).astype(F)
    inputs, shifts = [x, made.known(packed), made.known(scales)], np.full((n, blocks), 2.0 ** (bits - 1))
    if zeros == "packed":
        points = random.integers(0, 256, (n, -(-blocks // each))).astype(np.uint8)
        inputs, shifts = [*inputs, made.known(points)], unpacked(points)[:, :blocks]
    elif zeros == "floats":
        points = random.uniform(0, 15, (n, blocks)).astype(F)
        inputs, shifts = [*inputs, made.known(points)], points.astype(np.float64)
    result = made.take("MatMulNBits", *inputs, N=n, K=k, bits=bits, block_size=block, **DOMAIN)
    real = (unpacked(packed.reshape(n, -1)) - np.repeat(shifts, block, 1)) * np.repeat(scales, block, 1)
    return {result: made.feed[x].astype(np.float64) @ real[:, :k].T}


def rows_of(made: Nodes, k: int, *rows: tuple[int, ...]) -> list[str]:
    return [made.given(made.random.normal(0, 1, (*shape, k)).astype(F)) for shape in rows]


def test_matmul_nbits() -> None:
    """Columns that fill no panel, lengths that fill no block, every block size, every kind of zero points."""
    made = Nodes(21, microsoft=True)
    one, few, many = rows_of(made, 301, (1,), (1, 3), (2, 20))
    (even,) = rows_of(made, 288, (1, 1))
    nbits(made, one, 40, 4, 16)
    nbits(made, one, 64, 4, 256, "packed")
    nbits(made, few, 33, 4, 32, "packed")
    nbits(made, even, 16, 4, 128, "floats")
    nbits(made, even, 48, 2, 64)
    nbits(made, many, 40, 4, 64, "packed")
    # ONNX Runtime multiplies with weights of 8 bits only where its kernels like the shape.
    wanted = {**nbits(made, few, 40, 8, 16), **nbits(made, many, 33, 8, 32, "packed")}
    compare(made, 8, wanted)


def quantised(made: Nodes, dtype: Any, shape: tuple[int, int], axis: int, block: int = 0, zeros: bool = True) -> str:
    """A random matrix that is dequantised by a scale for all (axis -1), for places on an axis, or for its blocks."""
    low, high = limits(np.dtype(dtype).name)
    extents = list(shape)
    if block:
        extents[axis] = -(-extents[axis] // block)
    size = [] if axis < 0 else extents if block else [shape[axis]]
    numbers = made.random.integers(low, high + 1, shape).astype(dtype)
    inputs = [made.known(numbers), made.known(made.random.uniform(0.01, 0.1, size).astype(F))]
    if zeros:
        inputs.append(made.known(made.random.integers(low, high + 1, size).astype(dtype)))
    attributes = {"axis": axis, "block_size": block} if block else {"axis": axis} if axis >= 0 else {}
    return made.take("DequantizeLinear", *inputs, show=False, **attributes)


def test_dequantised_weights() -> None:
    """Of all types, per tensor, per column and in blocks; transposed, with a bias, read twice, behind an addition."""
    made = Nodes(21)
    one, few, many = rows_of(made, 101, (1,), (3,), (40,))
    bias = made.known(made.random.normal(0, 1, 40).astype(F))
    made.take("MatMul", one, quantised(made, ml_dtypes.int4, (101, 40), 0, 16))
    made.take("MatMul", few, quantised(made, ml_dtypes.uint4, (101, 33), 0, 32, zeros=False))
    turned = quantised(made, np.int8, (40, 101), 0)
    made.take("Gemm", few, turned, bias, transB=1)
    made.take("MatMul", many, made.take("Transpose", turned, show=False, perm=[1, 0]))
    made.take("Gemm", one, quantised(made, np.uint8, (40, 101), 1, 16), bias, transB=1, alpha=0.5)
    single = quantised(made, ml_dtypes.int4, (101, 64), -1, zeros=False)
    made.take("MatMul", one, single)
    made.take("Relu", made.take("MatMul", made.take("Add", many, few[:0] + one, show=False), single, show=False))
    compare(made, 7, {})


def test_weights_that_become_floats() -> None:
    """Scales of rows, blocks of columns, no whole words, other readers, few numbers, and the left-hand side."""
    made = Nodes(21)
    (x,) = rows_of(made, 64, (3,))
    made.take("MatMul", x, quantised(made, np.int8, (64, 33), 0))
    made.take("MatMul", x, quantised(made, ml_dtypes.int4, (64, 32), 1, 16))
    made.take("MatMul", x, quantised(made, ml_dtypes.int4, (64, 32), 0, 12))
    made.take("MatMul", x, quantised(made, ml_dtypes.int4, (64, 15), 0, 16))
    table = quantised(made, ml_dtypes.uint4, (64, 64), 0, 16)
    made.take("MatMul", x, table)
    made.take("Gather", table, made.given(np.array([5, 0, 63])))
    made.take("MatMul", quantised(made, np.uint8, (32, 64), 1), made.given(made.random.normal(0, 1, (64, 3)).astype(F)))
    compare(made, 0, {})


def test_weights_take_their_bits_in_the_bundle_and_on_the_device() -> None:
    """Numbers of 4 or 8 bits, scales, zero points of 4 bits: of 1 row and of 32, no panel of floats is held."""
    k, n, block = 1024, 512, 32
    for rows in (1, 32):
        made = Nodes(21, microsoft=True)
        (x,) = rows_of(made, k, (rows,))
        nbits(made, x, n, 4, block, "packed")
        made.take("MatMul", x, quantised(made, np.int8, (k, n), 1))
        state = compiled(made)
        blocks = k // block * n
        expected = k * n / 2 + blocks * 4 + blocks / 2 + k * n + n * 4 + n
        manifest = state.bundle.manifest
        stored = sum(file.size_bytes for file in manifest.files if file.path.startswith("weights/"))
        (load,) = state.plan.loads.values()
        (stage,) = manifest.plans[0].stages
        assert stored <= 1.02 * expected
        assert load.weight_bytes == stage.weight_bytes <= stored
        assert load.weight_bytes >= 0.98 * expected
        held = 2 * rows * k * 4 + 2 * rows * n * 4 + (rows > 1) * (512 << 10)  # inputs, results, what is in caches
        assert load.activation_bytes <= held + (64 << 10)
