"""Mod of integers and floats; TVM's remainder of floats is NaN where the divisor is infinite."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.element_types import is_float
from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Mod")
def mod(node: OnnxNode) -> Any:
    """The remainder of the sign of the divisor, or with `fmod` of the dividend, as the C function of that name."""
    from tvm import relax, te, tirx, topi

    x, y = node.input(0), node.input(1)
    dtype, of_dividend = str(x.ty.dtype), bool(node.attributes.get("fmod", 0))
    if not is_float(dtype):
        return (relax.op.mod if of_dividend else relax.op.floor_mod)(x, y)

    def remainders(a: Any, b: Any) -> Any:
        shape = topi.utils.get_const_tuple(topi.add(a, b).shape)
        a, b = topi.broadcast_to(a, shape), topi.broadcast_to(b, shape)
        function = "fmod" if wide == "float64" else "fmodf"

        def element(*place: Any) -> Any:
            rest = tirx.call_pure_extern(wide, function, a[place], b[place])
            if of_dividend:
                return rest
            zero = tirx.const(0, wide)
            return rest + tirx.Select(tirx.any(rest * b[place] >= zero, rest == zero), zero, b[place])

        return te.compute(shape, element, name="remainder")

    wide = dtype if dtype in ("float32", "float64") else "float32"
    if wide != dtype:
        x, y = (node.emit(relax.op.astype(value, wide)) for value in (x, y))
    result = node.builder.emit_te(remainders, x, y)
    return result if wide == dtype else relax.op.astype(result, dtype)
