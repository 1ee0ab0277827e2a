"""Look into a `tvm.s_tir.Schedule`: its blocks, their annotations, the extents of its loops."""

from __future__ import annotations

from typing import Any

SPATIAL, REDUCTION = 0, 2  # values of tir.IterVar.iter_type

# Annotation of a loop whose last iterations do less: they get code of their own, instead of tests in the innermost
# loop. (1 and not True: a schedule that was stored in a database comes back with 1.)
PARTITION = "pragma_loop_partition_hint"


class NotApplicable(Exception):
    """The primitive has not the shape that the rule is for; the general rule takes it."""


def blocks_of(schedule: Any) -> list[Any]:
    """The blocks of the function in order."""
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def annotation(schedule: Any, block: Any, key: str) -> Any:
    """The value of an annotation of a block, or None."""
    return (schedule.get(block).annotations or {}).get(key)


def extents(schedule: Any, loops: list[Any]) -> list[int]:
    """Trip counts of loops."""
    return [int(schedule.get(loop).extent) for loop in loops]


def of_bytes(schedule: Any, block: Any) -> bool:
    """Whether the block computes with 8-bit integers."""
    return any(str(region.source.dtype) in ("int8", "uint8") for region in schedule.get(block).reads)


def reduces(schedule: Any, block: Any) -> bool:
    """Whether the block sums up, or the like, over an axis."""
    return any(int(variable.iter_type) == REDUCTION for variable in schedule.get(block).iter_vars)
