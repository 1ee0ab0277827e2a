"""What `LegalizeOps` is to use instead of TVM's own rules."""

from __future__ import annotations

from tvmpipe.passes.kernels import KERNELS, elementwise, quantisation, special_values
from tvmpipe.passes.kernels.base import Legalize


def legalizations() -> dict[str, Legalize]:
    """The kernels' rules, polynomials for exp and the like, and operators that TVM computes wrongly, by operator."""
    rules = {**special_values.legalizations(), **elementwise.legalizations(), **quantisation.legalizations()}
    for kernel in KERNELS.values():
        rules |= kernel.legalizations()
    return rules
