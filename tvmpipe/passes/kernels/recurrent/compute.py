"""A recurrent layer's steps in one TIR function: a loop over time, and in it products and cells that vectorise.

The products of the inputs with their weights are made for all steps before, by an ordinary matrix product. What is left
is, at each step, the product of the state with the recurrent weights, and the cell. Hidden units lie in blocks of 16,
with zeros behind the last; weights as `[directions, blocks, length, gates, 16]`, so that one step reads them in order.
"""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.kernels.base import FLOPS_ATTR, KERNEL_ATTR, OPAQUE
from tvmpipe.passes.kernels.recurrent.cells import CELLS
from tvmpipe.passes.kernels.recurrent.layer import RECURRENT, Recurrence, Result, parameters, results
from tvmpipe.passes.kernels.recurrent.step import Step


def recurrent(layer: Recurrence) -> Any:
    """The `tirx.PrimFunc` of a layer: reads `parameters(layer)`, writes `results(layer)`."""
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    flops = 2 * layer.steps * layer.directions * layer.batch * layer.hidden**2 * layer.gates
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_name(layer.cell)
            T.func_attr({"op_pattern": OPAQUE})
            given = {name: T.arg(name, T.buffer(*kind)) for name, kind in parameters(layer).items()}
            made = {name: T.arg(name, T.buffer(shape, layer.dtype)) for name, shape in results(layer).items()}
            with T.sblock("root"):
                shape = (layer.directions, layer.batch, layer.padded)
                state = {name: T.sblock_alloc_buffer(shape, layer.dtype) for name in _states(layer)}
                following = {name: T.sblock_alloc_buffer(shape, layer.dtype) for name in _states(layer)}
                _start(layer, given, state)
                ways = T.parallel if layer.directions > 1 else T.serial
                with ways(layer.directions) as way, T.serial(layer.steps) as time:
                    with T.sblock("step"):
                        T.sblock_attr({KERNEL_ATTR: RECURRENT, FLOPS_ATTR: flops})
                        way_at = T.axis.spatial(layer.directions, way)
                        time_at = T.axis.opaque(layer.steps, time)
                        CELLS[layer.cell](Step(layer, given, state, following, way_at, time_at))
                    with T.sblock("carry"):
                        way_at = T.axis.spatial(layer.directions, way)
                        time_at = T.axis.opaque(layer.steps, time)
                        _carry(Step(layer, given, state, following, way_at, time_at), made.get("sequence"))
                _finish(layer, given, state, made)
        return builder.get()


def _states(layer: Recurrence) -> tuple[Result, ...]:
    return ("hidden", "cell") if layer.cell == "lstm" else ("hidden",)


def _start(layer: Recurrence, given: dict[str, Any], state: dict[Result, Any]) -> None:
    """States are the initial ones, or zero."""
    from tvm import tirx
    from tvm.tirx.script import builder as T

    zero = tirx.const(0, layer.dtype)
    for name, buffer in state.items():
        initial = given.get(f"initial_{name}")
        with T.grid(layer.directions, layer.batch, layer.padded) as (way, row, unit), T.sblock(f"start_{name}"):
            at = way_at, row_at, unit_at = T.axis.remap("SSS", [way, row, unit])
            value = zero
            if initial is not None:
                where = (row_at, way_at) if layer.batch_major else (way_at, row_at)
                value = tirx.Cast(layer.dtype, initial[(*where, tirx.min(unit_at, layer.hidden - 1))])
                value = tirx.Select(unit_at < layer.hidden, value, zero)
            T.buffer_store(buffer, value, list(at))


def _carry(step: Any, sequence: Any) -> None:
    """What the step made becomes the state, and goes into the results; those behind a sequence's end are zero."""
    from tvm import tirx
    from tvm.tirx.script import builder as T

    layer = step.layer
    for name, buffer in step.state.items():
        with T.grid(layer.batch, layer.padded) as (row, unit), T.sblock(f"carry_{name}"):
            row_at, unit_at = T.axis.remap("SS", [row, unit])
            T.buffer_store(buffer, step.following[name][step.way, row_at, unit_at], [step.way, row_at, unit_at])
    if sequence is None:
        return
    with T.grid(layer.batch, layer.hidden) as (row, unit), T.sblock("carry_sequence"):
        row_at, unit_at = T.axis.remap("SS", [row, unit])
        value = step.following["hidden"][step.way, row_at, unit_at]
        if layer.lengths:
            value = tirx.Select(step.goes_on(row_at), value, tirx.const(0, layer.dtype))
        place = step.place(row_at)
        at = (row_at, place, step.way) if layer.batch_major else (place, step.way, row_at)
        T.buffer_store(sequence, tirx.Cast(layer.dtype, value), [*at, unit_at])


def _finish(layer: Recurrence, given: dict[str, Any], state: dict[Result, Any], made: dict[Result, Any]) -> None:
    """The last states, those of empty sequences zero."""
    from tvm import tirx
    from tvm.tirx.script import builder as T

    for name, buffer in state.items():
        if name not in made:
            continue
        with T.grid(layer.directions, layer.batch, layer.hidden) as (way, row, unit), T.sblock(f"finish_{name}"):
            way_at, row_at, unit_at = T.axis.remap("SSS", [way, row, unit])
            value = buffer[way_at, row_at, unit_at]
            if layer.lengths:
                value = tirx.Select(given["lengths"][row_at] > 0, value, tirx.const(0, layer.dtype))
            where = (row_at, way_at) if layer.batch_major else (way_at, row_at)
            T.buffer_store(made[name], tirx.Cast(layer.dtype, value), [*where, unit_at])
