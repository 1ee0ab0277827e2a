"""Random nodes: for each operator what its inputs and attributes may be, mostly valid.

A proposal need not be right: whoever asked runs it, and drops what ONNX Runtime refuses. So shapes are only as careful
as it takes for some of the tries to succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph so far, with what it holds for the sample at hand.

    `exact`: it was moved about and not computed in floating point, so that two right programs hold the same bits.
    """

    name: str
    array: Array
    exact: bool


@dataclass
class Proposal:
    """A node to try: inputs are values of the graph, new constants, or None for those left out.

    `steps`: its result jumps where an input changes a little, so that inputs must be exact; `moves`: it is as exact as
    they are.
    """

    operator: str
    inputs: Sequence[Value | Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    steps: bool = False
    moves: bool = False


class Pool:
    """Chooses among the values of a graph."""

    def __init__(self, random: np.random.Generator, values: Sequence[Value]) -> None:
        self.random = random
        self._values = values

    def pick(self, kinds: str = "f", *, rank: Sequence[int] = (), exact: bool = False) -> Value:
        """A value whose dtype is of one of these kinds (numpy's letters). Raises LookupError when there is none."""
        fitting = [
            value
            for value in self._values
            if value.array.dtype.kind in kinds
            and (not rank or value.array.ndim in rank)
            and (value.exact or not exact)
            and value.array.size
        ]
        if not fitting:
            raise LookupError(kinds)
        late = len(fitting) - 1 - min(int(self.random.exponential(4.0)), len(fitting) - 1)
        return fitting[late]

    def like(self, value: Value) -> Value | Array:
        """Another of the same type that broadcasts with it: one of the graph, or a constant."""
        shape = value.array.shape
        fitting = [
            other
            for other in self._values
            if other.array.dtype == value.array.dtype and _broadcasts(other.array.shape, shape)
        ]
        if fitting and self.random.random() < 0.6:
            return fitting[int(self.random.integers(len(fitting)))]
        cut = int(self.random.integers(len(shape) + 1))
        return self.constant([extent if self.random.random() < 0.7 else 1 for extent in shape[cut:]], value.array.dtype)

    def constant(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Random elements; integers are small and not zero."""
        dtype = np.dtype(dtype)
        if dtype.kind == "f":
            return self.random.standard_normal(shape).astype(dtype)
        if dtype.kind == "b":
            return self.random.random(shape) < 0.5
        return self.random.integers(1, 6, shape).astype(dtype)

    def integer(self, low: int, high: int) -> int:
        """In low..high, both included."""
        return int(self.random.integers(low, high + 1))

    def axis(self, value: Value) -> int:
        """Counted from either end. Raises LookupError for a scalar."""
        if not value.array.ndim:
            raise LookupError("a scalar has no axis")
        return self.integer(-value.array.ndim, value.array.ndim - 1)

    def one_of(self, *choices: Any) -> Any:
        """Any of them."""
        return choices[int(self.random.integers(len(choices)))]


def _broadcasts(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))


Maker = Callable[[Pool], Proposal]

MAKERS: dict[str, Maker] = {}
"""A maker for each operator, or group of operators that take the same."""


def _makes(maker: Maker) -> Maker:
    MAKERS[maker.__name__.strip("_")] = maker
    return maker


_SMOOTH: dict[str, dict[str, Any]] = {
    name: {}
    for name in ("Sigmoid", "Tanh", "Erf", "Softplus", "Softsign", "Sin", "Cos", "Atan", "HardSwish", "Mish", "Gelu")
} | {
    "Elu": {"alpha": 0.7},
    "Celu": {"alpha": 1.3},
    "Selu": {},
    "LeakyRelu": {"alpha": 0.2},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "Sinh": {},
    "Asinh": {},
}


@_makes
def _smooth(pool: Pool) -> Proposal:
    name = pool.one_of(*_SMOOTH)
    return Proposal(name, [pool.pick()], dict(_SMOOTH[name]))


@_makes
def _sign_kept(pool: Pool) -> Proposal:
    return Proposal(pool.one_of("Abs", "Neg", "Relu", "Identity"), [pool.pick()], moves=True)


@_makes
def _rounding(pool: Pool) -> Proposal:
    operator = pool.one_of("Floor", "Ceil", "Round", "Sign")
    return Proposal(operator, [pool.pick(exact=True)], steps=True, moves=True)


@_makes
def _of_positives(pool: Pool) -> Proposal:
    return Proposal(pool.one_of("Sqrt", "Log", "Reciprocal", "Exp"), [pool.pick()])


@_makes
def _clip(pool: Pool) -> Proposal:
    x = pool.pick("fi")
    low, high = (np.array(bound).astype(x.array.dtype) for bound in (-1, 2))
    return Proposal("Clip", [x, pool.one_of(None, low), pool.one_of(None, high)], moves=True)


@_makes
def _arithmetic(pool: Pool) -> Proposal:
    x = pool.pick("fi")
    operator = pool.one_of("Add", "Sub", "Mul", "Div")
    inputs = [x, pool.like(x)]
    if pool.random.random() < 0.3 and operator != "Div":
        inputs.reverse()
    return Proposal(operator, inputs)


@_makes
def _extremes(pool: Pool) -> Proposal:
    x = pool.pick("f")
    return Proposal(pool.one_of("Min", "Max"), [x, pool.like(x)], moves=True)


@_makes
def _several(pool: Pool) -> Proposal:
    x = pool.pick("f")
    return Proposal(pool.one_of("Sum", "Mean"), [x, *(pool.like(x) for _ in range(pool.integer(0, 2)))])


@_makes
def _modulo(pool: Pool) -> Proposal:
    x = pool.pick("iu")
    return Proposal("Mod", [x, pool.constant(x.array.shape, x.array.dtype)], {"fmod": pool.integer(0, 1)})


@_makes
def _power(pool: Pool) -> Proposal:
    return Proposal("Pow", [pool.pick("f"), np.array(pool.one_of(2.0, 3.0, 0.5, -1.0), np.float32)])


@_makes
def _slope(pool: Pool) -> Proposal:
    x = pool.pick("f")
    shape = [x.array.shape[1], *[1] * (x.array.ndim - 2)] if x.array.ndim > 1 else [1]
    return Proposal("PRelu", [x, pool.constant(shape, x.array.dtype)])


@_makes
def _comparison(pool: Pool) -> Proposal:
    x = pool.pick("fi", exact=True)
    other = pool.like(x)
    if isinstance(other, Value) and not other.exact:
        raise LookupError("not exact")
    operator = pool.one_of("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal")
    return Proposal(operator, [x, other], steps=True)


@_makes
def _logic(pool: Pool) -> Proposal:
    x = pool.pick("b")
    if pool.random.random() < 0.3:
        return Proposal("Not", [x])
    return Proposal(pool.one_of("And", "Or", "Xor"), [x, pool.like(x)])


@_makes
def _where(pool: Pool) -> Proposal:
    condition = pool.pick("b")
    x = pool.pick("fi")
    return Proposal("Where", [condition, x, pool.like(x)], moves=True)


@_makes
def _cast(pool: Pool) -> Proposal:
    import onnx

    x = pool.pick("fiub", exact=True)
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    return Proposal("Cast", [x], {"to": int(pool.one_of(*kinds))}, steps=True, moves=True)


_REDUCTIONS = ("Sum", "Mean", "L1", "L2", "LogSumExp", "SumSquare", "Prod")


@_makes
def _reduction(pool: Pool) -> Proposal:
    x = pool.pick("f")
    axes = None if pool.random.random() < 0.2 else np.array(sorted({pool.axis(x) % x.array.ndim for _ in range(2)}))
    return Proposal(f"Reduce{pool.one_of(*_REDUCTIONS)}", [x, axes], {"keepdims": pool.integer(0, 1)})


@_makes
def _extreme_reduction(pool: Pool) -> Proposal:
    x = pool.pick("fi")
    operator = pool.one_of("ReduceMax", "ReduceMin")
    return Proposal(operator, [x, np.array([pool.axis(x)])], {"keepdims": pool.integer(0, 1)}, moves=True)


@_makes
def _arg(pool: Pool) -> Proposal:
    x = pool.pick("f", exact=True)
    attributes = {"axis": pool.axis(x), "keepdims": pool.integer(0, 1), "select_last_index": pool.integer(0, 1)}
    return Proposal(pool.one_of("ArgMax", "ArgMin"), [x], attributes, steps=True)


@_makes
def _top_k(pool: Pool) -> Proposal:
    x = pool.pick("f", exact=True)
    axis = pool.axis(x)
    count = np.array([pool.integer(1, x.array.shape[axis])])
    attributes = {"axis": axis, "largest": pool.integer(0, 1)}
    return Proposal("TopK", [x, count], attributes, outputs=2, steps=True, moves=True)


@_makes
def _cumulative(pool: Pool) -> Proposal:
    x = pool.pick("f")
    attributes = {"exclusive": pool.integer(0, 1), "reverse": pool.integer(0, 1)}
    return Proposal("CumSum", [x, np.array(pool.axis(x))], attributes)


@_makes
def _softmax(pool: Pool) -> Proposal:
    x = pool.pick("f")
    return Proposal(pool.one_of("Softmax", "LogSoftmax"), [x], {"axis": pool.axis(x)})


@_makes
def _reshape(pool: Pool) -> Proposal:
    x = pool.pick("fiub")
    size = x.array.size
    shape: list[int] = []
    while size > 1 and len(shape) < 4:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        shape.append(pool.one_of(*divisors))
        size //= shape[-1]
    if size > 1 or not shape:
        shape.append(-1)
    return Proposal("Reshape", [x, np.array(shape)], moves=True)


@_makes
def _transpose(pool: Pool) -> Proposal:
    x = pool.pick("fiub")
    return Proposal("Transpose", [x], {"perm": [int(p) for p in pool.random.permutation(x.array.ndim)]}, moves=True)


@_makes
def _flatten(pool: Pool) -> Proposal:
    x = pool.pick("f")
    return Proposal("Flatten", [x], {"axis": pool.integer(0, x.array.ndim)}, moves=True)


@_makes
def _unsqueeze(pool: Pool) -> Proposal:
    x = pool.pick("fib", rank=(0, 1, 2, 3))
    return Proposal("Unsqueeze", [x, np.array([pool.integer(0, x.array.ndim)])], moves=True)


@_makes
def _squeeze(pool: Pool) -> Proposal:
    return Proposal("Squeeze", [pool.pick("fib")], moves=True)


@_makes
def _concat(pool: Pool) -> Proposal:
    x = pool.pick("fi")
    parts = [x, *(pool.like(x) for _ in range(pool.integer(0, 2)))]
    return Proposal("Concat", parts, {"axis": pool.axis(x)}, moves=True)


@_makes
def _split(pool: Pool) -> Proposal:
    x = pool.pick("fi")
    axis = pool.axis(x)
    first = pool.integer(1, max(1, x.array.shape[axis] - 1))
    sizes = np.array([first, x.array.shape[axis] - first])
    return Proposal("Split", [x, sizes], {"axis": axis}, outputs=2, moves=True)


@_makes
def _slice(pool: Pool) -> Proposal:
    x = pool.pick("fib")
    axis = pool.axis(x)
    extent = x.array.shape[axis]
    start, step = pool.integer(-extent, extent - 1), pool.one_of(1, 1, 2, -1, -2)
    end = pool.one_of(extent, -extent - 1 if step < 0 else extent - 1)
    return Proposal("Slice", [x, *(np.array([number]) for number in (start, end, axis, step))], moves=True)


@_makes
def _pad(pool: Pool) -> Proposal:
    x = pool.pick("f")
    pads = np.array([pool.integer(-1, 2) for _ in range(2 * x.array.ndim)])
    mode = pool.one_of("constant", "constant", "reflect", "edge")
    value = np.array(0.5, x.array.dtype) if mode == "constant" and pool.random.random() < 0.5 else None
    return Proposal("Pad", [x, pads if mode == "constant" else np.abs(pads), value], {"mode": mode}, moves=True)


@_makes
def _tile(pool: Pool) -> Proposal:
    x = pool.pick("fi", rank=(1, 2, 3))
    return Proposal("Tile", [x, np.array([pool.integer(1, 2) for _ in x.array.shape])], moves=True)


@_makes
def _expand(pool: Pool) -> Proposal:
    x = pool.pick("fib", rank=(0, 1, 2, 3))
    shape = [extent if extent > 1 else pool.integer(1, 3) for extent in x.array.shape]
    return Proposal("Expand", [x, np.array([*([2] if pool.random.random() < 0.4 else []), *shape])], moves=True)


@_makes
def _gather(pool: Pool) -> Proposal:
    x = pool.pick("fi")
    axis = pool.axis(x)
    extent = x.array.shape[axis]
    indices = pool.random.integers(-extent, extent, [pool.integer(1, 3) for _ in range(pool.integer(0, 2))])
    return Proposal("Gather", [x, np.asarray(indices)], {"axis": axis}, moves=True)


@_makes
def _gather_elements(pool: Pool) -> Proposal:
    x = pool.pick("f")
    axis = pool.axis(x)
    indices = pool.random.integers(0, x.array.shape[axis], x.array.shape)
    return Proposal("GatherElements", [x, indices], {"axis": axis}, moves=True)


@_makes
def _gather_nd(pool: Pool) -> Proposal:
    x = pool.pick("f")
    depth = pool.integer(1, max(1, x.array.ndim))
    indices = np.stack([pool.random.integers(0, extent, 3) for extent in x.array.shape[:depth]], axis=-1)
    return Proposal("GatherND", [x, indices], moves=True)


@_makes
def _scatter(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(1, 2, 3))
    axis = pool.axis(x)
    order = np.argsort(pool.random.random(x.array.shape), axis=axis)
    updates = pool.constant(x.array.shape, x.array.dtype)
    attributes = {"axis": axis, "reduction": pool.one_of("none", "add", "max")}
    return Proposal("ScatterElements", [x, order, updates], attributes)


@_makes
def _triangle(pool: Pool) -> Proposal:
    x = pool.pick("fi", rank=(2, 3))
    return Proposal("Trilu", [x, np.array(pool.integer(-2, 2))], {"upper": pool.integer(0, 1)}, moves=True)


@_makes
def _blocks(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(4,))
    if pool.random.random() < 0.5:
        return Proposal("SpaceToDepth", [x], {"blocksize": 2}, moves=True)
    return Proposal("DepthToSpace", [x], {"blocksize": 2, "mode": pool.one_of("DCR", "CRD")}, moves=True)


@_makes
def _matmul(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(1, 2, 3, 4))
    k, n = x.array.shape[-1], pool.integer(1, 20)
    batch = list(x.array.shape[:-2]) if pool.random.random() < 0.2 else []
    return Proposal("MatMul", [x, pool.constant([*batch, k, n], x.array.dtype)])


@_makes
def _square(pool: Pool) -> Proposal:
    """A product of two values of the graph."""
    x, y = pool.pick("f", rank=(2, 3, 4)), pool.pick("f", rank=(2, 3, 4))
    return Proposal("MatMul", [x, y])


@_makes
def _gemm(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(2,))
    across, turned = pool.integer(0, 1), pool.integer(0, 1)
    k, n = x.array.shape[0 if across else 1], pool.integer(1, 20)
    weight = pool.constant([n, k] if turned else [k, n], x.array.dtype)
    bias = pool.one_of(None, pool.constant([n], x.array.dtype))
    attributes = {"transA": across, "transB": turned, "alpha": 0.7, "beta": 1.2}
    return Proposal("Gemm", [x, weight, bias], attributes)


@_makes
def _convolution(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(3, 4, 5))
    channels, rank = x.array.shape[1], x.array.ndim - 2
    groups = pool.one_of(1, 1, channels, *[2] * (channels % 2 == 0))
    outputs = groups * pool.integer(1, 8)
    kernel = [pool.integer(1, 3) for _ in range(rank)]
    attributes: dict[str, Any] = {"group": groups, "strides": [pool.integer(1, 2) for _ in kernel]}
    attributes["dilations"] = [pool.one_of(1, 1, 2) for _ in kernel]
    if pool.random.random() < 0.3:
        attributes["auto_pad"] = pool.one_of("SAME_UPPER", "SAME_LOWER", "VALID")
    else:
        attributes["pads"] = [pool.integer(0, 2) for _ in range(2 * rank)]
    weight = pool.constant([outputs, channels // groups, *kernel], x.array.dtype)
    return Proposal("Conv", [x, weight, pool.one_of(None, pool.constant([outputs], x.array.dtype))], attributes)


@_makes
def _transposed_convolution(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(3, 4))
    kernel = [pool.integer(1, 3) for _ in x.array.shape[2:]]
    attributes = {"strides": [pool.integer(1, 2) for _ in kernel], "pads": [pool.integer(0, 1)] * (2 * len(kernel))}
    return Proposal("ConvTranspose", [x, pool.constant([x.array.shape[1], 3, *kernel], x.array.dtype)], attributes)


@_makes
def _pool(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(3, 4))
    kernel = [pool.integer(1, 3) for _ in x.array.shape[2:]]
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [pool.integer(1, 2) for _ in kernel],
        "pads": [pool.integer(0, 1) for _ in range(2 * len(kernel))],
        "ceil_mode": pool.integer(0, 1),
    }
    if pool.random.random() < 0.5:
        return Proposal("MaxPool", [x], attributes, moves=True)
    return Proposal("AveragePool", [x], {**attributes, "count_include_pad": pool.integer(0, 1)})


@_makes
def _global_pool(pool: Pool) -> Proposal:
    return Proposal(pool.one_of("GlobalAveragePool", "GlobalMaxPool"), [pool.pick("f", rank=(3, 4))])


@_makes
def _normalisation(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(3, 4))
    channels, dtype = x.array.shape[1], x.array.dtype
    scale, shift = (pool.constant([channels], dtype) for _ in range(2))
    if pool.random.random() < 0.5:
        return Proposal("InstanceNormalization", [x, scale, shift])
    mean, variance = pool.constant([channels], dtype), np.abs(pool.constant([channels], dtype)) + dtype.type(0.5)
    return Proposal("BatchNormalization", [x, scale, shift, mean, variance])


@_makes
def _layer_normalisation(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(2, 3, 4))
    axis = pool.integer(1, x.array.ndim - 1)
    shape = x.array.shape[axis:]
    scale, shift = pool.constant(shape, x.array.dtype), pool.one_of(None, pool.constant(shape, x.array.dtype))
    if pool.random.random() < 0.3:
        return Proposal("RMSNormalization", [x, scale], {"axis": axis})
    return Proposal("LayerNormalization", [x, scale, shift], {"axis": axis})


@_makes
def _resize(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(4,))
    scales = np.array([1, 1, pool.one_of(0.5, 2.0, 1.5), pool.one_of(0.5, 2.0, 3.0)], np.float32)
    mode = pool.one_of("nearest", "linear", "cubic")
    coordinates = pool.one_of("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    return Proposal("Resize", [x, None, scales], attributes)


@_makes
def _quantised(pool: Pool) -> Proposal:
    x = pool.pick("f", exact=True)
    if x.array.dtype != np.float32:
        raise LookupError("float32 alone")
    zero = np.array(pool.integer(0, 20), pool.one_of(np.uint8, np.int8))
    return Proposal("QuantizeLinear", [x, np.array(0.05, np.float32), zero], steps=True)


@_makes
def _dequantised(pool: Pool) -> Proposal:
    candidates = pool.pick("iu")
    if candidates.array.dtype not in (np.uint8, np.int8):
        raise LookupError("8 bits alone")
    zero = np.array(pool.integer(0, 20), candidates.array.dtype)
    return Proposal("DequantizeLinear", [candidates, np.array(0.05, np.float32), zero], moves=True)


@_makes
def _recurrent(pool: Pool) -> Proposal:
    x = pool.pick("f", rank=(3,))
    size, kind = pool.integer(1, 20), pool.one_of("LSTM", "GRU", "RNN")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    direction = pool.one_of("forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    dtype = x.array.dtype
    weights = [0.3 * pool.constant([ways, gates * size, k], dtype) for k in (x.array.shape[2], size)]
    bias = 0.3 * pool.constant([ways, 2 * gates * size], dtype)
    attributes: dict[str, Any] = {"hidden_size": size, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = pool.integer(0, 1)
    return Proposal(kind, [x, *(w.astype(dtype) for w in weights), bias.astype(dtype)], attributes)
