"""What a converter is given and how it is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Operator = tuple[str, str]
"""Domain ("" is ONNX's own) and operator type."""


@dataclass(frozen=True)
class OnnxNode:
    """A node to convert.

    Attributes: `operator` its type; `opset` the version of ONNX's operators that the model imports; `inputs` Relax
    expressions, None for one that is left out (read them with `input`); `attributes` by name, as TVM's importer reads
    them (strings are bytes); `builder` the `relax.BlockBuilder` at work, to emit intermediate results; `scope` what
    TVM's converters want besides.
    """

    operator: str
    opset: int
    inputs: Sequence[Any]
    attributes: Mapping[str, Any]
    builder: Any
    scope: Any = None

    def input(self, place: int) -> Any:
        """An input, or None where the node has none there."""
        return self.inputs[place] if place < len(self.inputs) else None

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
