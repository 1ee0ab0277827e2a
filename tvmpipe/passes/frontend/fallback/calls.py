"""Groups of nodes that ONNX Runtime runs as Relax calls, and what is checked of other nodes beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tvmpipe.passes.frontend.arithmetic.halves import as_float16
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.fallback.value_types import ValueType
from tvmpipe.passes.frontend.unsupported import DTYPES
from tvmpipe.tensors import TensorSpec

_LEFT_OUT = ValueType(onnx.TensorProto.FLOAT, ())


def call_group(group: FallbackGroup, inputs: Sequence[Any], builder: Any) -> Any:
    """A call of the group's function, which every rewrite leaves as it is; a `relax.Tuple` of several results.

    Its arguments are the inputs of the group's model, weights as constants.
    """
    from tvm import relax

    kinds = {value.name: value.type.tensor_type.elem_type for value in group.model.graph.input}
    names = (*group.inputs, *group.weights)
    arguments = [_tensor(value, kinds[name], builder) for name, value in zip(names, inputs, strict=True)]
    types = [_type(spec) for spec in group.outputs]
    results = types[0] if len(types) == 1 else relax.TupleType(types)
    call = builder.emit(relax.op.call_pure_packed(group.symbol, *arguments, ty_args=results))
    if len(types) == 1:
        return call
    return relax.Tuple([builder.emit(relax.TupleGetItem(call, place)) for place in range(len(types))])


def group_called(call: Any, groups: Mapping[str, FallbackGroup]) -> FallbackGroup | None:
    """The group whose function a Relax call calls, of those by their symbol; None for any other call."""
    from tvm import relax

    if getattr(call.op, "name", "") != "relax.call_pure_packed" or not isinstance(call.args[0], relax.ExternFunc):
        return None
    return groups.get(str(call.args[0].global_symbol))


def _tensor(value: Any, kind: int, builder: Any) -> Any:
    """An argument as the tensor that the group's model declares: TVM's importer keeps some integers as shapes."""
    import tvm
    from tvm import relax

    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name
    if isinstance(value, relax.ShapeExpr):
        return relax.const(np.array([int(extent) for extent in value.values]), dtype)
    if dtype == "float16":
        return as_float16(builder, value)
    if str(value.ty.dtype) != dtype:
        return builder.emit(relax.op.astype(value, dtype))
    return value if isinstance(value, tvm.ir.GenericConst | relax.Var) else builder.emit(value)


def _type(spec: TensorSpec) -> Any:
    from tvm import relax

    if spec.open:
        return relax.TensorType(dtype=spec.dtype, ndim=len(spec.shape))
    return relax.TensorType(list(spec.shape), spec.dtype)


def check_results(made: Any, node: onnx.NodeProto) -> None:
    """Raise NotImplementedError where a converted node makes a tensor that no compiled stage can."""
    from tvm import relax, tirx

    types = list(made.ty.fields) if isinstance(made.ty, relax.TupleType) else [made.ty]
    for ty in types:
        if not isinstance(ty, relax.TensorType):
            continue  # a shape, a sequence, nothing: what reads it says whether it can
        if str(ty.dtype) not in DTYPES:
            raise NotImplementedError(f"its result has elements of type {ty.dtype}")
        if not isinstance(ty.shape, relax.ShapeExpr) or not all(isinstance(d, tirx.IntImm) for d in ty.shape.values):
            raise NotImplementedError("the shape of its result depends on the data")


def stand_in(node: onnx.NodeProto, types: Mapping[str, ValueType]) -> Any:
    """Variables as the results of a node that could not be converted; None where a type is not known.

    Of what type results are that the node leaves out does not matter.
    """
    from tvm import relax

    made = []
    for name in node.output:
        one = types.get(name) if name else _LEFT_OUT
        if one is None or one.static is None or one.dtype is None:
            return None
        dtype = "float32" if one.dtype == "float16" else one.dtype  # as halves.py says
        made.append(relax.Var("unknown", relax.TensorType(list(one.static), dtype)))
    return made[0] if len(made) == 1 else relax.Tuple(made)
