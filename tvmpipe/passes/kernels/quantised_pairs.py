"""What is quantised and made real again at once, with the same zero point: the two meet in a fused primitive.

Between them nothing is stored, so that no byte need be made: what is left is to bound and to round.
"""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.tir_operators import NEAREST, NEAREST_REAL, call_operator


def without_inverses(body: Any) -> Any:
    """A TIR statement without zero points that are added to a bounded number, stored as a byte, and taken off again.

    ::

        float32(int32(uint8(nearest(x) + z)) - z)
        ->
        nearest_float32(x)

    `quantisation.saturated` makes the first only of an `x` within the bounds of bytes less `z`.
    """
    from tvm import ir
    from tvm_ffi import structural_map

    def shift_back(node: Any) -> Any:
        rounded, zero = _shifted(_of_byte(node.a))
        return node if rounded is None or not _equal(zero, node.b) else rounded

    def round_only(node: Any) -> Any:
        if str(node.ty) != "float32":
            return node
        held = _of_byte(node.value)
        held = node.value if held is None else held
        return call_operator(NEAREST_REAL, *held.args, dtype="float32") if _is_nearest(held) else node

    shorter = structural_map(body, (ir.prim.Sub, shift_back), order="post")
    return structural_map(shorter, (ir.prim.Cast, round_only), order="post")


def _of_byte(node: Any) -> Any:
    """The int32 that became a byte and an int32 again, or None."""
    for expected in ("int32", "uint8", "int8"):
        if type(node).__name__ == "Cast" and str(node.ty) == expected:
            node = node.value
        elif expected == "int32":
            return None
    return node if str(node.ty) == "int32" else None


def _shifted(node: Any) -> tuple[Any, Any]:
    """(what was rounded, what is added to it) of such a sum."""
    if type(node).__name__ == "Add":
        for rounded, zero in ((node.a, node.b), (node.b, node.a)):
            if _is_nearest(rounded):
                return rounded, zero
    return None, None


def _is_nearest(node: Any) -> bool:
    return str(getattr(getattr(node, "op", None), "name", "")) == NEAREST


def _equal(one: Any, other: Any) -> bool:
    from tvm_ffi import structural_equal

    return bool(structural_equal(one, other))
