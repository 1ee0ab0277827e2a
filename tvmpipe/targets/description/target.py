"""What the planner and the code generator know of a processor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

LLVM = "llvm"
"""The code generator of a target that names no other."""
UNMEASURED_FRACTION = 0.6
"""`sustained_fraction` where nobody has measured it."""


@dataclass(frozen=True)
class TargetDescription:
    """One kind of processor.

    Attributes: `triple`, `cpu` and `features` ("+dotprod") as LLVM spells them, `vector_bits` the width of a SIMD
    register, `clock_hz` the nominal clock, `flops_per_cycle` fp32 operations a core retires per cycle at best (an FMA
    counts two), `memory_bandwidth_bps` bytes per second of the whole chip, `sustained_fraction` the share of the
    nominal peak that our kernels reach on whole networks. `board` is the name of a user's own board, whose measurements
    are kept apart from those of other machines with the same processor; "" for a target that comes with tvmpipe.
    `codegen` names the code generator of its stages (`passes.backend.codegen`).
    """

    name: str
    triple: str
    cpu: str
    vector_bits: int
    vector_registers: int
    cores: int
    clock_hz: float
    flops_per_cycle: float
    memory_bandwidth_bps: float
    sustained_fraction: float = UNMEASURED_FRACTION
    features: tuple[str, ...] = ()
    board: str = ""
    codegen: str = LLVM

    @property
    def architecture(self) -> str:
        """The first part of the triple: "x86_64", "aarch64"."""
        return self.triple.split("-", 1)[0]

    @property
    def identity(self) -> str:
        """What measurements of it are valid for, besides the number of threads; part of a file's name."""
        parts = [f"{self.triple}-{self.cpu}", self.board]
        if self.features:
            parts.append(hashlib.sha256(",".join(self.features).encode()).hexdigest()[:8])
        if self.codegen != LLVM:
            parts.append(self.codegen)
        return ".".join(part for part in parts if part)

    def runs(self, other: TargetDescription) -> bool:
        """Whether code for `other` runs here, as far as architecture and vectors say."""
        return self.architecture == other.architecture and self.vector_bits >= other.vector_bits

    def peak_flops(self, threads: int) -> float:
        """Nominal fp32 FLOP/s of `threads` cores (never more than the chip has)."""
        return min(threads, self.cores) * self.clock_hz * self.flops_per_cycle

    def tvm_target(self, threads: int) -> Any:
        """The `tvm.target.Target` that code for this processor is generated with."""
        import tvm

        attributes = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu, "num-cores": threads}
        return tvm.target.Target(attributes | ({"mattr": list(self.features)} if self.features else {}))
