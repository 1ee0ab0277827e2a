"""What follows a reduction in the same primitive: bias, activation, residual, all computed at the tile."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.inspect import SPATIAL, NotApplicable, blocks_of, extents
from tvmpipe.passes.kernels.operations import operations_of

_UNROLLED = 4  # operations for each result
_UNROLLED_OF_BYTES = 32  # the same where the sums are of bytes


def fold_epilogue(schedule: Any, main: Any) -> Any:
    """The one block that reads what `main` computes and writes the primitive's result, in `main`'s own indices.

    Elementwise blocks after `main` are inlined into the last of them, and so are those before it that it does not
    need, such as one that dequantises what is added to its result; where there are none, a copy is made.
    """
    for block in _beside(schedule, main):
        schedule.compute_inline(block)
    consumers = schedule.get_consumers(main)
    if not consumers:
        return schedule.cache_write(main, 0, "local")
    while True:
        following = [block for block in _after(schedule, main) if schedule.get_consumers(block)]
        if not following:
            break
        schedule.compute_inline(following[0])
    (last,) = _after(schedule, main)
    if (
        any(int(variable.iter_type) != SPATIAL for variable in schedule.get(last).iter_vars)
        or len(schedule.get(last).writes) != 1
    ):
        raise NotApplicable("what follows the reduction is not elementwise")
    main_shape = [
        int(variable.dom.extent) for variable in schedule.get(main).iter_vars if int(variable.iter_type) == SPATIAL
    ]
    if extents(schedule, schedule.get_loops(last)) != main_shape:
        raise NotApplicable("what follows the reduction has another shape")
    schedule.set_scope(main, 0, "local")
    return last


def is_cheap(schedule: Any, block: Any, *, of_bytes: bool = False) -> bool:
    """Whether unrolling the block over a whole tile leaves code of a sensible size.

    A bias and a ReLU do, a residual as well does not. Of bytes, sums take a quarter of the time, so that
    clearing them in memory and reading them from there, as LLVM does for a loop, weighs four times as much.
    """
    operations = operations_of(schedule.get(block).body)
    most = _UNROLLED_OF_BYTES if of_bytes else _UNROLLED
    return operations.costly_calls == 0 and operations.arithmetic <= most


def _beside(schedule: Any, main: Any) -> list[Any]:
    """Blocks before `main` that compute nothing for it, in order."""
    needed, waiting = set(), [main]
    while waiting:
        block = waiting.pop()
        needed.add(schedule.get(block).name_hint)
        waiting += schedule.get_producers(block)
    name = schedule.get(main).name_hint
    names = [schedule.get(block).name_hint for block in blocks_of(schedule)]
    before = blocks_of(schedule)[: names.index(name)]
    return [block for block in before if schedule.get(block).name_hint not in needed]


def _after(schedule: Any, main: Any) -> list[Any]:
    """Blocks that depend on `main`, in order."""
    name = schedule.get(main).name_hint
    blocks = blocks_of(schedule)
    place = next(i for i, block in enumerate(blocks) if schedule.get(block).name_hint == name)
    return blocks[place + 1 :]
