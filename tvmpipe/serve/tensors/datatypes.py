"""Element types as the protocol spells them, and tensors as its bytes and its JSON have them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.errors import SampleError
from tvmpipe.tensors import CARRIERS, TensorSpec, element_dtype

DATATYPES: Mapping[str, str] = MappingProxyType(
    {
        "bool": "BOOL",
        **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
        "float16": "FP16",
        "float32": "FP32",
        "float64": "FP64",
        "bfloat16": "BF16",
    }
)
"""numpy's name of an element type -> the protocol's."""

_NUMPY = {datatype: name for name, datatype in DATATYPES.items()}


def datatype_of(spec: TensorSpec) -> str:
    """The protocol's name of a tensor's type; of types that it lacks, that of their carrier."""
    return DATATYPES.get(spec.element or spec.dtype, DATATYPES[spec.dtype])


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: Any) -> NDArray[Any]:
    """A tensor from its elements in order, little-endian. Raises SampleError."""
    dtype = _dtype(name, datatype).newbyteorder("<")
    elements = _elements(name, shape)
    if len(data) != elements * dtype.itemsize:
        raise SampleError(
            f"input {name!r} has {len(data)} bytes; {datatype} of shape {list(shape)} has {elements * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype).reshape(tuple(shape))


def to_bytes(array: NDArray[Any]) -> bytes:
    """The same the other way."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def from_numbers(name: str, datatype: str, shape: Sequence[int], data: Iterable[Any]) -> NDArray[Any]:
    """A tensor from its elements as JSON has them, flat or nested. Raises SampleError."""
    dtype = _dtype(name, datatype)
    wrong = SampleError(f"the data of input {name!r} are no numbers of {datatype}")
    try:
        if dtype.kind in "iu":  # exactly: of large integers numpy would make floats
            given = np.array(data, object)
            if any(type(one) is not int for one in given.flat):
                raise wrong
        else:
            given = np.array(data)
            if given.size and given.dtype.kind not in ("b" if dtype.kind == "b" else "iuf"):
                raise wrong
        array = given.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise wrong from None
    if array.size != _elements(name, shape):
        raise SampleError(f"input {name!r} has {array.size} elements; shape {list(shape)} has {_elements(name, shape)}")
    return array.reshape(tuple(shape))


def as_sent(array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """An output in a type that the protocol has."""
    if spec.element is None or spec.element in DATATYPES:
        return array
    return array.astype(CARRIERS[spec.element])


def _dtype(name: str, datatype: str) -> np.dtype[Any]:
    if datatype not in _NUMPY:
        raise SampleError(f"input {name!r} has datatype {datatype!r}; allowed: {', '.join(DATATYPES.values())}")
    try:
        found = _NUMPY[datatype]
        return element_dtype(found) if found in CARRIERS else np.dtype(found)
    except ModuleNotFoundError:
        raise SampleError(f"input {name!r}: {datatype} needs the package ml_dtypes on the server") from None


def _elements(name: str, shape: Sequence[int]) -> int:
    if any(extent < 0 for extent in shape):
        raise SampleError(f"input {name!r} has shape {list(shape)}, with an extent below 0")
    return math.prod(shape)
