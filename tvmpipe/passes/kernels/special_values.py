"""Operators that TVM legalizes with other results than ONNX wants for infinities and NaN.

TVM starts a maximum from the lowest finite number, so that a row of -inf gives that number and not -inf; masked
attention compares the result with -inf. And its Relu makes 0 of NaN, so that a diverged network looks healthy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def legalizations() -> dict[str, Callable[[Any, Any], Any]]:
    """What `LegalizeOps` is to use instead, by operator."""
    from tvm import te, tirx

    def reducer(combine: Any, start: float, fallback: Any) -> Callable[..., Any]:
        def identity(dtype: str) -> Any:
            return tirx.const(start, dtype) if "float" in str(dtype) else fallback(dtype)

        return tirx.comm_reducer(combine, identity)  # type: ignore[no-any-return]

    infinity = float("inf")
    reducers = {
        "max": reducer(lambda a, b: tirx.max(a, b), -infinity, tirx.min_value),
        "min": reducer(lambda a, b: tirx.min(a, b), infinity, tirx.max_value),
    }

    def over(reduce: Any) -> Callable[..., Any]:
        def compute(x: Any, axis: Any, keepdims: bool) -> Any:
            rank = len(x.shape)
            axes = range(rank) if axis is None else [int(a) % rank for a in axis]
            axes = sorted(axes)
            variables = {a: te.reduce_axis((0, x.shape[a]), name=f"k{a}") for a in axes}
            kept = [a for a in range(rank) if a not in variables]
            shape = [1 if a in variables else x.shape[a] for a in range(rank) if keepdims or a not in variables]

            def element(*indices: Any) -> Any:
                place = dict(zip(range(rank) if keepdims else kept, indices, strict=True))
                at = [variables.get(a, place.get(a)) for a in range(rank)]
                return reduce(x[tuple(at)], axis=list(variables.values()))

            return te.compute(shape, element, name="extreme")

        return compute

    def legalize(compute: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        return lambda builder, call: builder.call_te(compute, call.args[0], call.attrs.axis, call.attrs.keepdims)

    def relu(x: Any) -> Any:
        def element(*indices: Any) -> Any:
            zero = tirx.const(0, x.dtype)
            return tirx.Select(x(*indices) < zero, zero, x(*indices))

        return te.compute(x.shape, element, name="relu")

    rules = {f"relax.{name}": legalize(over(reduce)) for name, reduce in reducers.items()}
    rules["relax.nn.relu"] = lambda builder, call: builder.call_te(relu, call.args[0], primfunc_name_hint="relu")
    return rules
