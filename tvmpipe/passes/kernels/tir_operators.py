"""TIR operators of our own: pure, and vectorised like arithmetic.

TVM must know them before it reads functions with them from a file (`register_operators`).
"""

from __future__ import annotations

import functools
from typing import Any

QUAD, DOT4, NARROW, OFFSET = "tvmpipe.quad", "tvmpipe.dot4", "tvmpipe.dot4_narrow", "tvmpipe.dot4_offset"
"""Sums of products of bytes: see dot_product/operators.py."""
NEAREST = "tvmpipe.nearest_int32"
"""A float32 number rounded half to even, which an int32 must hold: one instruction on x86, `cvtps2dq`."""

QUOTIENT, PRODUCT = "tvmpipe.quotient", "tvmpipe.quotient_by_product"
"""`(x, y, high, low)` of float32: `x / y`, and `x * (high + low)` rounded once but for an error of 2^-46 of it.

The second is what processors with a fused multiplication and addition compute of the first (see exact_reciprocal.py).
"""

NEAREST_REAL = "tvmpipe.nearest_float32"
"""The same as a float32; `tirx.nearbyint` would keep loops from being vectorised."""

_INPUTS = {QUAD: 4, DOT4: 2, NARROW: 2, OFFSET: 0, NEAREST: 1, NEAREST_REAL: 1, QUOTIENT: 4, PRODUCT: 4}
_PURE = 1  # tirx::CallEffectKind::kPure


def call_operator(name: str, *arguments: Any, dtype: str = "int32") -> Any:
    """A call of one of these operators, whose result is of type `dtype`."""
    from tvm import tirx

    register_operators()
    return tirx.call_intrin(dtype, name, *arguments)


@functools.cache
def register_operators() -> None:
    """Make the operators known to TVM in this process."""
    from tvm import tirx

    for name, inputs in _INPUTS.items():
        register_operator(name, inputs)
    tirx.register_intrin_lowering(NEAREST, target="llvm", f=_in_one_instruction, level=99)
    tirx.register_intrin_lowering(NEAREST, target="default", f=_in_two_steps, level=99)
    tirx.register_intrin_lowering(NEAREST_REAL, target="default", f=lambda c: tirx.nearbyint(c.args[0]), level=99)
    tirx.register_intrin_lowering(NEAREST_REAL, target="llvm", f=_in_one_rounding, level=99)
    tirx.register_intrin_lowering(QUOTIENT, target="default", f=lambda call: call.args[0] / call.args[1], level=99)
    tirx.register_intrin_lowering(PRODUCT, target="llvm", f=_times_two_terms, level=99)


def register_operator(name: str, inputs: int) -> None:
    """Make one operator known to TVM."""
    from tvm import ir
    from tvm.ir import _ffi_api

    if name in ir.Op.list_op_names():
        return
    _ffi_api.RegisterOp(name, "")
    ir.Op.get(name).set_num_inputs(inputs)
    ir.register_op_attr(name, "TCallEffectKind", _PURE)
    ir.register_op_attr(name, "TVectorizable", True)
    ir.register_op_attr(name, "TScriptPrinterName", name)


def _in_one_instruction(call: Any) -> Any:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(str(call.ty), "llvm.lrint", call.args[0])


def _in_one_rounding(call: Any) -> Any:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(str(call.ty), "llvm.nearbyint", call.args[0])


def _in_two_steps(call: Any) -> Any:
    from tvm import tirx

    return tirx.nearbyint(call.args[0]).astype(str(call.ty))


def _times_two_terms(call: Any) -> Any:
    from tvm import tirx

    x, _, high, low = call.args
    held = tirx.Var("held", str(call.ty))  # a chain of such operators would grow with every time that `x` stands here
    return tirx.Let(held, x, tirx.call_llvm_pure_intrin(str(call.ty), "llvm.fma", held, high, held * low))
