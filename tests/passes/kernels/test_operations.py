"""What a block computes is counted in its IR, whatever its tensors are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tvmpipe.passes.kernels import elementwise
from tvmpipe.passes.kernels.epilogue import is_cheap
from tvmpipe.passes.kernels.generic import schedule_generic
from tvmpipe.passes.kernels.inspect import blocks_of
from tvmpipe.passes.kernels.operations import Operations, operations_of


def relu(x: Any) -> Any:
    from tvm import tirx

    zero = tirx.const(0.0, "float32")
    return tirx.Select(x < zero, zero, x)


def called(name: str) -> Callable[[Any], Any]:
    from tvm import tirx

    return lambda x: getattr(tirx, name)(x)


def schedule_of(element: Callable[[Any], Any], name: str = "block") -> Any:
    """A schedule of one elementwise block."""
    from tvm import s_tir, te

    x = te.placeholder((8, 16), "float32", name="x")
    return s_tir.Schedule(te.create_prim_func([x, te.compute(x.shape, lambda *at: element(x(*at)), name=name)]))


def counted(element: Callable[[Any], Any], name: str = "block") -> Operations:
    schedule = schedule_of(element, name)
    return operations_of(schedule.get(blocks_of(schedule)[0]).body)


@pytest.mark.parametrize(
    ("element", "arithmetic", "calls"),
    [
        (lambda x: x, 0, 0),
        (lambda x: x + x * x, 2, 0),
        (relu, 2, 0),
        (called("exp"), 0, 1),
        (called("sqrt"), 0, 1),
        (called("floor"), 0, 0),
    ],
)
def test_counts(element: Callable[[Any], Any], arithmetic: int, calls: int) -> None:
    assert counted(element) == Operations(arithmetic, calls)


def test_indices_are_no_operations() -> None:
    from tvm import s_tir, te

    x = te.placeholder((64,), "float32", name="x")
    moved = te.compute((8, 8), lambda i, j: x[(i * 8 + j * 3) % 64], name="moved")
    schedule = s_tir.Schedule(te.create_prim_func([x, moved]))
    assert operations_of(schedule.get(blocks_of(schedule)[0]).body) == Operations(0, 0)


def test_a_branch_is_costly() -> None:
    from tvm import tirx

    assert counted(lambda x: tirx.if_then_else(x < 1.0, x, tirx.const(0.0, "float32"))).costly_calls == 1


@pytest.mark.parametrize("name", ["T_expand_dims", "power", "sinus_table", "a_name_" + 100 * "that_is_very_long_"])
def test_names_do_not_count(name: str) -> None:
    """The printed TIR of a block has the names of its tensors in it."""
    assert counted(lambda x: x * x, name) == Operations(1, 0)
    schedule = schedule_of(lambda x: x * x, name)
    assert is_cheap(schedule, blocks_of(schedule)[0])


def test_what_is_unrolled() -> None:
    """A bias with ReLU; not exp by a polynomial, and not a call of the C library."""
    for element, cheap in ((relu, True), (elementwise.exp, False), (called("exp"), False)):
        schedule = schedule_of(element)
        assert is_cheap(schedule, blocks_of(schedule)[0]) is cheap


@pytest.mark.parametrize(
    ("element", "name", "inlined"),
    [
        (lambda x: x * x, "T_expand_dims", True),
        (elementwise.tanh, "bent", False),
        (called("exp"), "bent", False),
    ],
)
def test_what_a_reduction_repeats(element: Callable[[Any], Any], name: str, inlined: bool) -> None:
    """The sum computes a cheap operand for each of its results itself; a costly one is computed once before."""
    from tvm import s_tir, te

    x = te.placeholder((8, 16), "float32", name="x")
    bent = te.compute(x.shape, lambda *at: element(x(*at)), name=name)
    k = te.reduce_axis((0, 16), name="k")
    total = te.compute((8, 4), lambda i, j: te.sum(bent[i, k], axis=[k]), name="total")
    schedule = s_tir.Schedule(te.create_prim_func([x, total]))
    schedule_generic(schedule, 8)
    assert (name not in {schedule.get(block).name_hint for block in blocks_of(schedule)}) is inlined
