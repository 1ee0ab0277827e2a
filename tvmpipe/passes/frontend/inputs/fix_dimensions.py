"""Every input of a model with its extents: those in the file, and what the user says of the open ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from tvmpipe.errors import InputError, UnsupportedModelError
from tvmpipe.passes.frontend.arithmetic.element_types import carrier, element_of
from tvmpipe.passes.frontend.inputs.index_bounds import index_bounds
from tvmpipe.passes.frontend.onnx_values import held_type
from tvmpipe.passes.frontend.unsupported import DTYPES
from tvmpipe.tensors import CARRIERS, TensorSpec


def fix_inputs(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, int]
) -> tuple[TensorSpec, ...]:
    """Write extents into the model's inputs, which must all be static then, and return the inputs.

    `shapes` are of whole inputs, by name; `dims` of open dimensions, by the names that the file gives them, wherever
    they occur. Raises InputError for what does not fit, and one that names all dimensions that are still open.
    """
    values = inputs_of(model)
    _check_tensors("input", values)
    _check_tensors("output", model.graph.output)
    _check_names(values, shapes, dims)
    for value in values:
        _fix_dims(value, dims)
        if value.name in shapes:
            _fix_shape(value, shapes[value.name], dims)
    still_open = [value for value in values if _extents(value) is None]
    if still_open:
        raise InputError(_open(still_open))
    bounds = index_bounds(model)
    return tuple(_spec(value, bounds.get(value.name)) for value in values)


def _check_tensors(what: str, values: Iterable[onnx.ValueInfoProto]) -> None:
    for value in values:
        kind = value.type.WhichOneof("value")
        if what == "output" and held_type(value.type) is not None:
            continue
        if kind not in (None, "tensor_type") or (kind is None and what == "input"):
            called = {"sequence_type": "a sequence", "optional_type": "an optional", None: "of no type"}.get(kind, kind)
            raise UnsupportedModelError(
                f"{what} {value.name!r} is {called}; inputs and outputs of a compiled model are tensors"
            )


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a model is given: its graph's inputs but those that have a value of their own."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def _check_names(
    values: Sequence[onnx.ValueInfoProto], shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, int]
) -> None:
    names = [value.name for value in values]
    for name in shapes:
        if name not in names:
            raise InputError(f"--shape names {name!r}, which is no input of the model; allowed: {', '.join(names)}")
    known = list(dict.fromkeys(dim.dim_param for value in values for dim in _dims(value) if dim.dim_param))
    for name, extent in dims.items():
        if name not in known:
            allowed = f"allowed: {', '.join(known)}" if known else "none of its open dimensions has a name"
            raise InputError(f"--dim names {name!r}, which is no open dimension of the model's inputs; {allowed}")
        if extent < 1:
            raise InputError(f"--dim {name}={extent} is no extent; an open dimension takes any number from 1")


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _fix_dims(value: onnx.ValueInfoProto, dims: Mapping[str, int]) -> None:
    for dim in _dims(value):
        if dim.dim_param in dims:
            dim.dim_value = dims[dim.dim_param]


def _fix_shape(value: onnx.ValueInfoProto, given: tuple[int, ...], dims: Mapping[str, int]) -> None:
    tensor = value.type.tensor_type
    own = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    mismatch = len(given) != len(own) or any(d > 0 and d != g for d, g in zip(own, given, strict=False))
    if (tensor.HasField("shape") and mismatch) or any(extent < 1 for extent in given):
        after = " after --dim" if dims else ""
        raise InputError(
            f"--shape {value.name}={','.join(map(str, given))} does not fit the model's "
            f"[{_show(value)}]{after}; open dimensions take any number from 1"
        )
    value.CopyFrom(helper.make_tensor_value_info(value.name, tensor.elem_type, given))


def _extents(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    extents = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in _dims(value))
    return None if any(extent < 0 for extent in extents) else extents


def _open(values: Sequence[onnx.ValueInfoProto]) -> str:
    """What is open in which inputs, and options that would fix all of it."""
    where = ", ".join(f"{value.name!r} has open dimensions [{_show(value)}]" for value in values)
    options: dict[str, None] = {}
    for value in values:
        missing = [dim for dim in _dims(value) if not dim.HasField("dim_value") or dim.dim_value < 0]
        if missing and all(dim.dim_param for dim in missing):
            options.update(dict.fromkeys(f"--dim {shlex.quote(dim.dim_param)}=1" for dim in missing))
        else:
            ones = ",".join(str(dim.dim_value) if dim.dim_value > 0 else "1" for dim in _dims(value)) or "1"
            options[f"--shape {shlex.quote(value.name)}={ones}"] = None
    return f"input {where}; fix them, for example with {' '.join(options)}"


def _show(value: onnx.ValueInfoProto) -> str:
    return ",".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in _dims(value))


def _spec(value: onnx.ValueInfoProto, below: int | None) -> TensorSpec:
    kind = value.type.tensor_type.elem_type
    element = element_of(kind)
    dtype = carrier(element)
    if dtype not in DTYPES:
        allowed = ", ".join((*sorted(DTYPES), *CARRIERS))
        raise UnsupportedModelError(f"input {value.name!r} has elements of type {element}; allowed: {allowed}")
    extents = _extents(value)
    assert extents is not None
    rare = element if element in CARRIERS else None
    return TensorSpec(name=value.name, shape=extents, dtype=dtype, below=below, element=rare)
