"""ONNX -> Relax: read, check, fix dimensions, fold constants and shapes, import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.fix_dimensions import fix_inputs
from tvmpipe.passes.frontend.fix_values import Array, fix_values
from tvmpipe.passes.frontend.importer import Relax, to_relax
from tvmpipe.passes.frontend.read_model import read_model
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.frontend.simplify import simplify
from tvmpipe.passes.frontend.unsupported import DTYPES
from tvmpipe.tensors import TensorSpec


@dataclass(frozen=True)
class Imported:
    """A model as a Relax `IRModule`, as its users see it, sentences for the report, and what ONNX Runtime runs.

    `values` are those of inputs of the file that became constants.
    """

    module: Any
    signature: Signature
    notes: tuple[str, ...]
    values: Mapping[str, Array]
    groups: tuple[FallbackGroup, ...] = ()


def import_onnx(
    source: Any,
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    values: Mapping[str, Any] | None = None,
    *,
    fallback: bool = False,
) -> Imported:
    """Read a model, a path or an `onnx.ModelProto`.

    `shapes` (input name -> dimensions) and `dims` (name of an open dimension -> extent) fix what the file leaves open;
    inputs in `values` (input name -> number, list or array) become constants. With `fallback`, nodes that TVM cannot
    compile are left to ONNX Runtime, in groups. Raises ModelError, UnsupportedModelError and InputError.
    """
    model, name, digest = read_model(source)
    fixed = fix_values(model, values or {})
    inputs = fix_inputs(model, {name: tuple(extents) for name, extents in shapes.items()}, dims)
    forget_declared(model)
    simplified = simplify(model, inputs)
    made = to_relax(simplified.model, simplified.nodes, inputs, fallback=fallback)
    module = made.module
    outputs = _output_specs(made, simplified.model.graph)
    signature = Signature(name, digest, inputs, outputs)
    kept = [value.name for value in simplified.model.graph.input]
    module["main"] = module["main"].with_attr("tvmpipe.inputs", kept)
    return Imported(module, signature, simplified.notes, fixed, made.groups)


def forget_declared(model: onnx.ModelProto) -> None:
    """Drop what the file says of shapes behind its inputs: some exporters declare false ones, and ours are inferred.

    The types of elements stay, which no file may leave out.
    """
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _output_specs(made: Relax, graph: onnx.GraphProto) -> tuple[TensorSpec, ...]:
    """Names, shapes and dtypes of what `main` returns, which must be what ONNX infers of the outputs where it does."""
    from tvm import relax

    by_onnxruntime = {spec.name: spec for group in made.groups for spec in group.outputs}
    returned = made.module["main"].ret_ty
    types = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    if len(types) != len(graph.output):
        raise UnsupportedModelError(f"TVM imports {len(types)} outputs where the model has {len(graph.output)}")
    specs = []
    for ty, output in zip(types, graph.output, strict=True):
        if output.name in by_onnxruntime:
            specs.append(by_onnxruntime[output.name])
            continue
        spec = tensor_spec(ty, output.name)
        inferred = output.type.tensor_type
        dims = [dim.dim_value for dim in inferred.shape.dim]
        same = len(dims) == len(spec.shape) and all(d < 1 or d == s for d, s in zip(dims, spec.shape, strict=True))
        if inferred.HasField("shape") and not same:
            raise UnsupportedModelError(
                f"TVM computes output {output.name!r} with shape {list(spec.shape)}, and ONNX infers {dims}"
            )
        specs.append(spec)
    return tuple(specs)


def tensor_spec(ty: Any, name: str) -> TensorSpec:
    """The spec of a Relax tensor type. Raises UnsupportedModelError unless its shape is static."""
    from tvm import relax, tirx

    if not isinstance(ty, relax.TensorType):
        kind = "a shape" if isinstance(ty, relax.ShapeType) else "a tuple or an object"
        raise UnsupportedModelError(f"{name} is {kind} and not a tensor; it cannot be compiled")
    if not isinstance(ty.shape, relax.ShapeExpr) or not all(isinstance(d, tirx.IntImm) for d in ty.shape.values):
        raise UnsupportedModelError(f"the shape of {name} depends on the data; only static shapes can be compiled")
    if str(ty.dtype) not in DTYPES:
        raise UnsupportedModelError(f"{name} has elements of type {ty.dtype}; allowed: {', '.join(sorted(DTYPES))}")
    return TensorSpec(name=name, shape=tuple(int(d) for d in ty.shape.values), dtype=str(ty.dtype))
