"""Element types that numpy lacks, between casts; and random numbers, which cannot be compared but for their shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from benchmarks.random_graphs.pool import Pool
from benchmarks.random_graphs.proposal import Proposal, makes

_FLOATS = (
    *(TensorProto.BFLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ),
    *(TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT4E2M1),
)
_INTEGERS = (TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2)
_MOVES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Identity", {}),
    ("Transpose", {}),
    ("Flatten", {"axis": 0}),
)


@makes("rare type moved")
def moved(pool: Pool, operator: str) -> Proposal:
    """Cast to a rare type, moved about, and cast back."""
    kind = pool.one_of(*_FLOATS, *_INTEGERS)
    if kind in _INTEGERS:
        # Integers that do not fit wrap or not as the caster likes.
        low, high = {TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15), TensorProto.INT2: (-2, 1)}.get(kind, (0, 3))
        shape = [pool.integer(1, 5) for _ in range(pool.integer(1, 3))]
        from benchmarks.random_graphs.pool import Value

        x = Value("", pool.random.integers(low, high + 1, shape).astype(pool.one_of(np.float32, np.int32)))
    else:
        x = pool.pick(types=("float32", "float16"), exact=True)
        if not np.isfinite(x.array).all() or np.abs(x.array).max(initial=0) > 400:
            raise LookupError("saturates")
    name, attributes = pool.one_of(*_MOVES)
    nodes = [
        helper.make_node("Cast", ["i0"], ["a"], to=int(kind)),
        helper.make_node(name, ["a"], ["b"], **attributes),
        helper.make_node("Cast", ["b"], ["o0"], to=int(TensorProto.FLOAT)),
    ]
    return Proposal(nodes, [x], steps=True, moves=True)


@makes("bfloat16")
def brain(pool: Pool, operator: str) -> Proposal:
    """An operator that computes in bfloat16, between casts."""
    x = pool.pick(types=("float32",), rank=(2,), exact=True)
    if not np.isfinite(x.array).all():
        raise LookupError("finite alone")
    name = pool.one_of("Relu", "Add", "Mul", "MatMul", "Sqrt", "Exp", "Softmax", "ReduceSum", "Neg", "Sigmoid", "Max")
    other = x if name in ("Add", "Mul", "Max") else pool.fresh([x.array.shape[1], 3], np.float32, tame=True)
    two = name in ("Add", "Mul", "MatMul", "Max")
    nodes = [helper.make_node("Cast", ["i0"], ["a"], to=int(TensorProto.BFLOAT16))]
    if two:
        nodes.append(helper.make_node("Cast", ["i1"], ["b"], to=int(TensorProto.BFLOAT16)))
    nodes.append(helper.make_node(name, ["a", "b"] if two else ["a"], ["c"]))
    nodes.append(helper.make_node("Cast", ["c"], ["o0"], to=int(TensorProto.FLOAT)))
    return Proposal(nodes, [x, other] if two else [x], last=True)


@makes("random")
def chance(pool: Pool, operator: str) -> Proposal:
    """Random numbers, of which only shape and type are known: what is left of them is both."""
    name = pool.one_of(
        "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"
    )
    x = pool.fresh([2, pool.integer(1, 4)], np.float32, tame=True)
    attributes: dict[str, Any] = {"seed": 1.0}
    if name in ("RandomNormal", "RandomUniform"):
        attributes["shape"] = [pool.integer(1, 3), 2]
    reads = [] if "shape" in attributes else ["i0"]
    if name == "Bernoulli":
        x = type(x)("", np.abs(x.array) % 1)
    nodes = [helper.make_node(name, reads, ["a"], **attributes), helper.make_node("Shape", ["a"], ["o0"])]
    return Proposal(nodes, [x] if reads else [], moves=True, last=True)
