"""The facts of a target that the schedules are derived from."""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.targets.target import TargetDescription


@dataclass(frozen=True)
class Machine:
    """`lanes` floats in a vector register, `registers` vector registers, `threads` that run a stage."""

    lanes: int
    registers: int
    threads: int

    @property
    def accumulators(self) -> int:
        """Vector registers that may hold results while operands stream through the others."""
        return 24 if self.registers >= 32 else 12


def describe(target: TargetDescription, threads: int) -> Machine:
    """What `target` looks like from `threads` threads."""
    return Machine(max(target.vector_bits // 32, 4), target.vector_registers, threads)
