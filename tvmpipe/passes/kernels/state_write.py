"""A step's elements go into the buffer of a state, which stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmpipe.passes.kernels.base import OPAQUE

STATE_WRITE = "state_write"

IN_PLACE = "relax.call_tir_inplace"
"""The operator that calls it: its result is the buffer that it was given first."""

LENGTH = "tvmpipe.length"
"""Attribute of `main`: the parameter that says how many elements states that grow have, by its place."""


def state_write(shape: Sequence[int], axis: int, step: int, dtype: str) -> Any:
    """The `tirx.PrimFunc` that changes its first parameter, for `call_tir_inplace`.

    It takes the buffer of that `shape`, what is new, of the same shape but `step` along `axis`, and the number of
    elements that the buffer has (int64, without dimensions), behind which it writes; of a number that leaves no room,
    into the last places.
    """
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    extents = list(map(int, shape))
    room = extents[axis] - step
    extents[axis] = step
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_name(STATE_WRITE)
            T.func_attr({"op_pattern": OPAQUE})
            buffer = T.arg("state", T.buffer(tuple(map(int, shape)), dtype))
            new = T.arg("new", T.buffer(tuple(extents), dtype))
            length = T.arg("length", T.buffer((), "int64"))
            with T.sblock("root"), T.grid(*extents) as loops, T.sblock(STATE_WRITE):
                at = T.axis.remap("S" * len(extents), list(loops) if len(extents) > 1 else [loops])
                at = list(at) if len(extents) > 1 else [at]
                T.reads(length[()], new[tuple(at)])
                T.writes(
                    buffer[
                        tuple(
                            slice(0, int(extent)) if place == axis else at[place] for place, extent in enumerate(shape)
                        )
                    ]
                )
                begin = tirx.max(tirx.min(length[()], tirx.const(room, "int64")), tirx.const(0, "int64"))
                places = [*at[:axis], tirx.Cast("int32", begin) + at[axis], *at[axis + 1 :]]
                T.buffer_store(buffer, new[tuple(at)], places)
        return builder.get()
