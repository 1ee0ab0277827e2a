"""Operators along axes: sums, extremes, sorts, cumulative sums, softmax and norms."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_graphs.pool import Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node

_SUMS = ("Sum", "Mean", "L1", "L2", "LogSum", "LogSumExp", "SumSquare", "Prod")


@makes(*(f"Reduce{name}" for name in (*_SUMS, "Max", "Min")))
def reduction(pool: Pool, operator: str) -> Proposal:
    extreme = operator in ("ReduceMax", "ReduceMin")
    types = ("float32", "float32", "float16", "float64", "int32", "int64", *(("uint8", "int8") if extreme else ()))
    x = pool.pick(types=types, empty=not extreme)
    attributes: dict[str, Any] = {"keepdims": pool.integer(0, 1)}
    axes = None
    if x.array.ndim and pool.flip(0.8):
        count = pool.integer(1, x.array.ndim)
        chosen = pool.random.choice(x.array.ndim, count, replace=False)
        axes = np.array([int(axis) - pool.one_of(0, x.array.ndim) for axis in chosen], np.int64)
    elif pool.flip(0.3):
        attributes["noop_with_empty_axes"] = 1
    return node(operator, [x, axes], attributes, moves=extreme)


@makes("ArgMax", "ArgMin")
def arg(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "float64", "int32", "int8", "uint8", "int64"), rank=(1, 2, 3, 4), exact=True)
    attributes = {"axis": pool.axis(x), "keepdims": pool.integer(0, 1), "select_last_index": pool.integer(0, 1)}
    return node(operator, [x], attributes, steps=True)


@makes("Hardmax")
def hardmax(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(1, 2, 3, 4), exact=True)
    return node(operator, [x], pool.one_of({}, {"axis": pool.axis(x)}), steps=True, moves=True)


@makes("TopK")
def top_k(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "float64", "int32", "int64"), rank=(1, 2, 3), exact=True)
    axis = pool.axis(x)
    count = np.array([pool.integer(1, x.array.shape[axis])])
    attributes = {"axis": axis, "largest": pool.integer(0, 1)}
    return node(operator, [x, count], attributes, outputs=2, steps=True, moves=True)


@makes("CumSum", "CumProd")
def cumulative(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(types=("float32", "float64", "int32", "int64"), rank=(1, 2, 3, 4))
    attributes = {"exclusive": pool.integer(0, 1), "reverse": pool.integer(0, 1)}
    return node(operator, [x, np.array(pool.axis(x))], attributes)


@makes("Softmax", "LogSoftmax")
def softmax(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(1, 2, 3, 4))
    return node(operator, [x], pool.one_of({}, {"axis": pool.axis(x)}))


@makes("LpNormalization")
def lp_normalisation(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(1, 2, 3))
    return node(operator, [x], {"axis": pool.axis(x), "p": pool.integer(1, 2)})


@makes("MeanVarianceNormalization")
def mean_variance(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(4,))
    return node(operator, [x], pool.one_of({}, {"axes": [0, 2, 3]}, {"axes": [1, -1]}))


@makes("InstanceNormalization", "GroupNormalization")
def instance(pool: Pool, operator: str) -> Proposal:
    groups = pool.integer(1, 3)
    channels = groups * pool.integer(1, 3)
    shape = [pool.integer(1, 2), channels, *(pool.integer(1, 5) for _ in range(pool.integer(1, 2)))]
    x = pool.fresh(shape, pool.floats)
    scale, shift = (pool.operand([channels], pool.floats) for _ in range(2))
    attributes: dict[str, Any] = {"epsilon": pool.one_of(1e-5, 1e-2)}
    if operator == "GroupNormalization":
        attributes["num_groups"] = groups
    return node(operator, [x, scale, shift], attributes)


@makes("BatchNormalization")
def batch(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(2, 3, 4, 5))
    channels, dtype = x.array.shape[1], x.array.dtype
    scale, shift, mean = (pool.operand([channels], dtype) for _ in range(3))
    variance = pool.positive([channels], dtype)
    return node(operator, [x, scale, shift, mean, variance], pool.one_of({}, {"epsilon": 1e-2}))


@makes("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(1, 2, 3, 4))
    axis = pool.axis(x)
    shape = x.array.shape[axis:] if pool.flip(0.7) else x.array.shape[-1:]
    scale = pool.operand(shape, x.array.dtype)
    attributes = {"axis": axis, "epsilon": pool.one_of(1e-5, 1e-2)}
    if operator != "LayerNormalization":
        return node(operator, [x, scale], attributes)
    shift = pool.one_of(None, pool.operand(shape, x.array.dtype))
    return node(operator, [x, scale, shift], attributes, outputs=pool.one_of(1, 1, 3))


@makes("LRN")
def local_response(pool: Pool, operator: str) -> Proposal:
    x = pool.pick(rank=(4,))
    if not np.isfinite(x.array).all():
        raise LookupError("ONNX Runtime's running sum keeps NaN for the channels behind")
    attributes = {"size": pool.integer(1, 5), "alpha": pool.number(0.01, 1), "beta": 0.75, "bias": pool.number(0.5, 2)}
    return node(operator, [x], attributes)


@makes("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(pool: Pool, operator: str) -> Proposal:
    batch, classes = pool.integer(1, 4), pool.integer(2, 5)
    rest = [pool.integer(1, 3) for _ in range(pool.integer(0, 2))]
    scores = pool.fresh([batch, classes, *rest], np.float32)
    labels = pool.random.integers(0, classes, [batch, *rest])
    weights = pool.one_of(None, pool.positive([classes]))
    attributes: dict[str, Any] = {"reduction": pool.one_of("none", "sum", "mean")}
    if pool.flip(0.3):
        attributes["ignore_index"] = pool.integer(0, classes - 1)
    outputs = pool.one_of(1, 2) if operator == "SoftmaxCrossEntropyLoss" else 1
    return node(operator, [scores, Value("", labels), weights], attributes, outputs=outputs)
