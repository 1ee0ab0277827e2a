"""What each operator that decides speed computes, as tensor expressions whose loops `passes.kernels.schedule` knows.

Layouts are the same for every target: channels and columns in blocks of 16, which is one AVX-512 register, two of
AVX2 and four of NEON. A tensor that passes from one device to an unlike one then needs no repacking, and the
placement sees one graph.
"""

from __future__ import annotations

from tvmpipe.passes.kernels import elementwise, special_values
from tvmpipe.passes.kernels.base import Legalize
from tvmpipe.passes.kernels.matmul import compute as matmul
from tvmpipe.passes.kernels.rows import compute as rows


def legalizations() -> dict[str, Legalize]:
    """What `LegalizeOps` is to use instead of TVM's own, by Relax operator."""
    return {
        **special_values.legalizations(),
        **elementwise.legalizations(),
        **rows.legalizations(),
        **matmul.legalizations(),
    }
