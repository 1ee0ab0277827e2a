"""What the planner and the code generator know of a processor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from tvmpipe.targets.description.llvm import processor_features

LLVM = "llvm"
"""The code generator of a target that names no other."""
UNMEASURED_FRACTION = 0.6
"""`sustained_fraction` where nobody has measured it."""
BYTE_PRODUCTS = frozenset({"avx512vnni", "avxvnni", "dotprod", "i8mm"})
"""Features of processors, as LLVM spells them, that nothing but kernels of 8-bit integers uses."""


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

    @property
    def plain(self) -> TargetDescription:
        """The target without instructions for products of bytes that were added to it; itself where none were.

        What is compiled for it and has no kernel of 8-bit integers is the same code, so its measurements hold as well.
        """
        kept = tuple(one for one in self.features if one not in {f"+{name}" for name in BYTE_PRODUCTS})
        return self if kept == self.features else replace(self, features=kept)

    def runs(self, other: TargetDescription) -> bool:
        """Whether code for `other` runs here, as far as architecture, vectors and products of bytes say."""
        if self.architecture != other.architecture or self.vector_bits < other.vector_bits:
            return False
        return other._byte_products() <= self._byte_products()

    def _byte_products(self) -> frozenset[str]:
        return BYTE_PRODUCTS & processor_features(self.triple, self.cpu, self.features)

    def peak_flops(self, threads: int) -> float:
        """Nominal fp32 FLOP/s of `threads` cores (never more than the chip has)."""
        return min(threads, self.cores) * self.clock_hz * self.flops_per_cycle

    def tvm_target(self, threads: int) -> Any:
        """The `tvm.target.Target` that code for this processor is generated with."""
        import tvm

        attributes = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu, "num-cores": threads}
        return tvm.target.Target(attributes | ({"mattr": list(self.features)} if self.features else {}))
