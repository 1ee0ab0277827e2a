"""BitCast, which TVM's importer lacks: the same bits as numbers of another type of the same width."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmpipe.passes.frontend.arithmetic.element_types import element_of, held, limits, width
from tvmpipe.passes.frontend.arithmetic.quantised import elementwise
from tvmpipe.passes.frontend.arithmetic.small_floats import bits_of, is_small_float
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts
from tvmpipe.passes.kernels.base import OPAQUE
from tvmpipe.tensors import CARRIERS, element_dtype


@converts("BitCast")
def bit_cast(node: OnnxNode) -> Any:
    """The bits of the input, element by element; small floats and integers are looked up by their bits."""
    from tvm import relax, te, tirx

    given, wanted = node.element(0), element_of(int(node.attributes["to"]))
    if "string" in (given, wanted) or width(given) != width(wanted):
        raise NotImplementedError(f"a BitCast of {given} to {wanted}, which have not the same width")
    table = _numbers(wanted)

    def bits(x: Any) -> Any:
        if is_small_float(given):
            return bits_of(x, given)
        if given == "float16":
            return x.astype(given)
        if given in CARRIERS:
            return x.astype("uint8") & tirx.const((1 << width(given)) - 1, "uint8")
        return x.astype("uint8") if given == "bool" else x

    def compute(x: Any, numbers: Any = None) -> Any:
        def at(*indices: Any) -> Any:
            pattern = bits(x(*indices))
            if numbers is not None:
                index = tirx.reinterpret(f"uint{max(width(wanted), 8)}", pattern).astype("int32")
                return numbers(index)
            if wanted == "bfloat16":
                whole = tirx.reinterpret("uint16", pattern).astype("uint32") << 16
                return tirx.reinterpret("float32", whole)
            if wanted == "bool":
                return pattern.astype("bool")
            return tirx.reinterpret(wanted, pattern)

        return te.compute(x.shape, at, name="bit_cast")

    tensors = [node.input(0)] if table is None else [node.input(0), relax.const(table, str(table.dtype))]
    return elementwise(node.builder, compute, *tensors, name="bit_cast", pattern=OPAQUE)


def _numbers(element: str) -> Any:
    """The number of each pattern of bits of a small type, in its carrier; None for a type that needs no table."""
    if element not in CARRIERS or element == "bfloat16":
        return None
    patterns = np.arange(1 << width(element), dtype=np.uint8)
    if is_small_float(element):
        return held(patterns.view(element_dtype(element)))
    low, high = limits(element)
    signed = patterns.astype(np.int16)
    return np.where(signed > high, signed - (high - low + 1), signed).astype(CARRIERS[element])
