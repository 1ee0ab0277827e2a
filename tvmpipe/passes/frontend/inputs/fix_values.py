"""Inputs that a user gives with the model: they become constants of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tvmpipe.errors import InputError

Array = NDArray[Any]

_NUMBERS = "biuf"


def fix_values(model: onnx.ModelProto, values: Mapping[str, Any]) -> dict[str, Array]:
    """Make initializers of the inputs in `values` (numbers, nested lists, arrays), and return their arrays by name.

    Open dimensions of theirs that have names get extents in all inputs. Raises InputError for what is no input, does
    not fit the input's type or shape, or leaves the model without inputs.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    initial = {tensor.name for tensor in graph.initializer}
    arrays: dict[str, Array] = {}
    extents: dict[str, int] = {}
    for name, given in values.items():
        if name not in inputs:
            allowed = ", ".join(inputs) or "none, it has no inputs"
            raise InputError(f"--value names {name!r}, which is no input of the model; allowed: {allowed}")
        arrays[name] = _array(inputs[name], given, extents)
    if arrays and not set(inputs) - initial - set(arrays):
        raise InputError("--value makes constants of all inputs of the model; one must be left to run it")
    for name, array in arrays.items():
        for tensor in [one for one in graph.initializer if one.name == name]:
            graph.initializer.remove(tensor)
        graph.input.remove(inputs[name])
        graph.initializer.append(numpy_helper.from_array(array, name))
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in extents:
                dim.dim_value = extents[dim.dim_param]
    return arrays


def _array(value: onnx.ValueInfoProto, given: Any, extents: dict[str, int]) -> Array:
    """What is given as the input's type and shape; its named dimensions are noted in `extents`."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        raise InputError(f"--value names {value.name!r}, which does not take numbers; only inputs that do can be given")
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.array(None)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if array.dtype.kind not in _NUMBERS and array.dtype != dtype:
        raise InputError(f"--value {value.name} is no number, list of numbers of equal lengths, or array of numbers")
    array = _fitted(value.name, array, tensor)
    converted = array if array.dtype == dtype else _converted(array, dtype)
    if converted is None:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(f"--value {value.name}={_shown(array)} does not fit the input, whose elements are {kind}")
    for dim, extent in zip(tensor.shape.dim, array.shape, strict=False):
        if dim.dim_param and extents.setdefault(dim.dim_param, extent) != extent:
            known = extents[dim.dim_param]
            raise InputError(f"--value {value.name} makes {dim.dim_param} {extent}, and another value makes it {known}")
    return converted


def _fitted(name: str, array: Array, tensor: onnx.TypeProto.Tensor) -> Array:
    """The array in the input's shape; a single number also fits where every extent is 1."""
    if not tensor.HasField("shape"):
        return array
    wanted = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    pairs = list(zip(wanted, array.shape, strict=False))
    if len(wanted) == array.ndim and all(not isinstance(extent, int) or extent == have for extent, have in pairs):
        return array
    if array.ndim == 0 and all(not isinstance(extent, int) or extent == 1 for extent in wanted):
        return array.reshape([1] * len(wanted))
    shape = ",".join(map(str, wanted))
    raise InputError(f"--value {name} has shape {list(array.shape)}, which does not fit the model's [{shape}]")


def _converted(array: Array, dtype: np.dtype[Any]) -> Array | None:
    """The same numbers as elements of another type; None where it has not all of them. Floats may be rounded."""
    with np.errstate(all="ignore"):
        made = array.astype(dtype)
    if dtype.kind in "biu":
        return made if np.array_equal(made, array) else None
    lost = np.isfinite(array) & ~np.isfinite(made.astype(np.float64))
    return None if lost.any() else made


def _shown(array: Array) -> str:
    numbers = ",".join(map(str, array.reshape(-1)[:4].tolist()))
    return f"{numbers},..." if array.size > 4 else numbers
