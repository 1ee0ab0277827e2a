"""What a converter is given and how it is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.kernels.base import constant_of, shape_of

Operator = tuple[str, str]
"""Domain ("" is ONNX's own) and operator type."""

MICROSOFT = "com.microsoft"
"""ONNX Runtime's own domain."""


@dataclass(frozen=True)
class OnnxNode:
    """A node to convert.

    Attributes: `operator` its type; `opset` the version of ONNX's operators that the model imports; `inputs` Relax
    expressions, None for one that is left out (read them with `input`); `attributes` by name, as TVM's importer reads
    them (strings are bytes); `builder` the `relax.BlockBuilder` at work, to emit intermediate results; `scope` what
    TVM's converters want besides; `elements` the element types of inputs that Relax holds in wider ones, by place (see
    element_types.py); `outputs` the names of its results, "" for one that nothing reads.
    """

    operator: str
    opset: int
    inputs: Sequence[Any]
    attributes: Mapping[str, Any]
    builder: Any
    scope: Any = None
    elements: Mapping[int, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()

    def input(self, place: int) -> Any:
        """An input, or None where the node has none there."""
        return self.inputs[place] if place < len(self.inputs) else None

    def known(self, place: int, name: str = "") -> NDArray[Any] | None:
        """The value of an input that is a constant, or None where the node has none there.

        Raises NotImplementedError for one that is known only at run time; `name` is what the message calls it.
        """
        value = self.input(place)
        if value is None:
            return None
        from tvm import relax

        if isinstance(value, relax.ShapeExpr):
            return np.array([int(extent) for extent in value.values], np.int64)
        array: NDArray[Any] | None = constant_of(value)
        if array is None:
            raise NotImplementedError(f"input {name or place} is known only at run time; it must be a constant")
        return array

    def required(self, place: int, name: str) -> NDArray[Any]:
        """As `known`, of an input that no node leaves out."""
        value = self.known(place, name)
        if value is None:
            raise NotImplementedError(f"input {name} is left out")
        return value

    def reduced_axes(self) -> list[int] | None:
        """The axes of a reduction, an attribute before opset 18 and input 1 from then on; None where it names none.

        Raises NotImplementedError for axes that are known only at run time.
        """
        axes = self.attributes.get("axes") if self.opset < 18 else self.known(1, "axes")
        return [int(axis) for axis in axes] if axes is not None and len(axes) else None

    def shape(self, place: int) -> tuple[int, ...]:
        """The extents of an input."""
        return shape_of(self.input(place))

    @property
    def result_count(self) -> int:
        """How many results the node names."""
        return int(self.attributes.get("tvm_custom", {}).get("num_outputs", 1))

    def const(self, number: float | NDArray[Any], like: int = 0) -> Any:
        """A constant of the element type of an input."""
        from tvm import relax

        return relax.const(number, str(self.input(like).ty.dtype))

    def emit(self, value: Any) -> Any:
        """Binds an expression to a variable."""
        return self.builder.emit(value)

    def element(self, place: int) -> str:
        """The element type of an input, as numpy and ml_dtypes name it; "int64" of a shape."""
        kind = getattr(self.inputs[place].ty, "dtype", "int64")
        return self.elements.get(place, str(kind))

    def converted_by_tvm(self) -> Any:
        """What TVM's own converter makes of the node."""
        from tvm.relax.frontend.onnx import onnx_frontend

        converter = onnx_frontend._get_convert_map()[self.operator].get_converter(self.opset)
        return converter(self.builder, self.inputs, dict(self.attributes), self.scope)


Converter = Callable[[OnnxNode], Any]
"""The Relax expression of a node's result, a `relax.Tuple` of several. Raises NotImplementedError with the reason."""

_CONVERTERS: dict[Operator, Converter] = {}


def converts(operator: str, domain: str = "") -> Callable[[Converter], Converter]:
    """Registers the function below as the converter of an operator."""

    def register(converter: Converter) -> Converter:
        if (domain, operator) in _CONVERTERS:
            raise RuntimeError(f"two converters for {domain}.{operator}".replace(" .", " "))
        _CONVERTERS[domain, operator] = converter
        return converter

    return register


def registered() -> Mapping[Operator, Converter]:
    """The converters that are registered so far."""
    return MappingProxyType(_CONVERTERS)
