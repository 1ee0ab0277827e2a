"""What schedules know of a processor: its vectors, its registers, how many threads run; and what they may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tvmpipe.targets.description.llvm import processor_features
from tvmpipe.targets.description.target import TargetDescription

T = TypeVar("T")


@dataclass
class Choices:
    """Decisions of a rule: `made` before it runs, by name; `offered` is what it asked for, with all candidates."""

    made: Mapping[str, Any] = field(default_factory=dict)
    offered: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class CpuModel:
    """`lanes` floats in a vector register, `registers` vector registers, `threads` that run a stage.

    `features` are those of the processor, as LLVM spells them ("avx2").
    """

    lanes: int
    registers: int
    threads: int
    features: frozenset[str] = frozenset()
    choices: Choices = field(default_factory=Choices, compare=False)

    @property
    def by_element(self) -> bool:
        """Whether products take a factor from any element of a register, as NEON's do."""
        return self.lanes == 4 and self.registers >= 32

    def tile_rows(self, vectors: int, *, row_vectors: bool = False) -> int:
        """Most rows of a register tile `vectors` wide: its results stay in registers while operands stream by.

        With `row_vectors`, four numbers of each row are in a register beside them, or of each column with AVX-512.
        """
        if self.registers < 32 and self.lanes == 8:
            # LLVM holds a whole row of the right-hand side and one number of the left-hand side beside them.
            return max(0, self.registers - 1 - vectors) // vectors
        if self.registers < 32:
            # SSE overwrites a factor with each product and takes one from memory only where that is aligned. Of three
            # rows LLVM spills some sums: two took 0.4 to 0.75 of their time. A single row spills none.
            return 8 // vectors or 12 // vectors
        if self.lanes == 16 and not row_vectors:
            return 28 // vectors  # AVX-512 multiplies by a number in memory, NEON wants it in a register
        return (20 if row_vectors and self.lanes == 4 and vectors <= 20 else 24) // vectors

    def choose(self, name: str, default: T, candidates: Sequence[T]) -> T:
        """The decision made for `name`, or the rule's own `default`; a tuner tries all candidates."""
        self.choices.offered[name] = [default, *(one for one in candidates if one != default)]
        return self.choices.made.get(name, default)  # type: ignore[no-any-return]


def describe_cpu(target: TargetDescription, threads: int, choices: Choices | None = None) -> CpuModel:
    """What `target` looks like from `threads` threads."""
    features = processor_features(target.triple, target.cpu, target.features)
    lanes = max(target.vector_bits // 32, 4)
    return CpuModel(lanes, target.vector_registers, threads, features, choices or Choices())
