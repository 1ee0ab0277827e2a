"""The activations of recurrent cells that ONNX lists, in float32 as polynomials that vectorise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels import elementwise

DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (1.0, 1.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (1.0, None),
}
"""Name in lower case -> alpha and beta where nothing is said: those of the ONNX operators; None where it has none."""


@dataclass(frozen=True)
class Activation:
    """One of `DEFAULTS` with its numbers."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


def activate(activation: Activation, x: Any) -> Any:
    """The activation of a float32 or float64 expression, which is written out several times: give it a variable."""
    from tvm import tirx

    dtype = str(x.ty.dtype)

    def number(value: float) -> Any:
        return tirx.const(value, dtype)

    polynomials = dtype == "float32"
    exp: Callable[[Any], Any] = elementwise.exp if polynomials else tirx.exp
    tanh: Callable[[Any], Any] = elementwise.tanh if polynomials else tirx.tanh
    zero, one = number(0.0), number(1.0)
    alpha, beta = number(activation.alpha), number(activation.beta)
    rules: dict[str, Callable[[], Any]] = {
        "affine": lambda: alpha * x + beta,
        "elu": lambda: tirx.Select(x >= zero, x, alpha * (exp(x) - one)),
        "hardsigmoid": lambda: tirx.min(tirx.max(alpha * x + beta, zero), one),
        "leakyrelu": lambda: tirx.Select(x >= zero, x, alpha * x),
        "relu": lambda: tirx.max(x, zero),
        "scaledtanh": lambda: alpha * tanh(beta * x),
        "sigmoid": lambda: one / (one + exp(-x)),
        # log(1 + e^x) without the overflow of e^x
        "softplus": lambda: tirx.max(x, zero) + tirx.log(one + exp(-tirx.abs(x))),
        "softsign": lambda: x / (one + tirx.abs(x)),
        "tanh": lambda: tanh(x),
        "thresholdedrelu": lambda: tirx.Select(x > alpha, x, zero),
    }
    return rules[activation.name]()
