"""uint8 numbers of floats, with the scale and the zero point that hold the range of those floats."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.quantised import quantized, saturated


def dynamically_quantized(builder: Any, x: Any) -> tuple[Any, Any, Any]:
    """(uint8 numbers, scale, zero point) of a float32 tensor, by ONNX's definition of DynamicQuantizeLinear.

    The range reaches 0; where it is a single point the scale is 1, as in ONNX Runtime.
    """
    from tvm import relax, te, tirx

    largest, smallest = builder.emit(relax.op.max(x)), builder.emit(relax.op.min(x))

    def scale_of(largest: Any, smallest: Any) -> Any:
        def at() -> Any:
            zero = tirx.const(0.0, "float32")
            span = tirx.max(largest(), zero) - tirx.min(smallest(), zero)
            return tirx.Select(span == zero, tirx.const(1.0, "float32"), span / tirx.const(255.0, "float32"))

        return te.compute((), at, name="scale")

    def zero_of(smallest: Any, scale: Any) -> Any:
        def at() -> Any:
            zero = tirx.const(0.0, "float32")
            return saturated(zero - tirx.min(smallest(), zero) / scale(), None, "uint8")

        return te.compute((), at, name="zero_point")

    scale = builder.emit(builder.call_te(scale_of, largest, smallest, primfunc_name_hint="quantisation_scale"))
    zero = builder.emit(builder.call_te(zero_of, smallest, scale, primfunc_name_hint="quantisation_zero_point"))
    return quantized(builder, x, scale, zero, "uint8"), scale, zero
