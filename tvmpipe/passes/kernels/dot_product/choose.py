"""Put the instructions of one processor into a scheduled function."""

from __future__ import annotations

import functools
from typing import Any

from tvmpipe.passes.kernels.dot_product import arm, x86
from tvmpipe.passes.kernels.dot_product.instruction_set import InstructionSet, accumulate_bytes
from tvmpipe.passes.kernels.dot_product.operators import bytes_as_int32, raised
from tvmpipe.passes.kernels.quantised_pairs import without_inverses
from tvmpipe.passes.kernels.tir_operators import (
    DOT4,
    NARROW,
    OFFSET,
    PRODUCT,
    QUAD,
    QUOTIENT,
    call_operator,
    register_operator,
    register_operators,
)
from tvmpipe.targets.description.cpu_model import CpuModel

GENERAL = InstructionSet("any", frozenset(), 1, 0, 16.0, lambda sums, x, w: accumulate_bytes(sums, x, w, 0))

INSTRUCTION_SETS = (*x86.INSTRUCTION_SETS, *arm.INSTRUCTION_SETS, GENERAL)
"""The first that a processor has, for vectors as long as its schedules', is used."""
_FUSED = frozenset({"fma", "neon", "f"})
"""Features of which each has a multiplication and addition that is rounded once: of x86-64, Arm and RISC-V."""


def instructions_of(cpu: CpuModel) -> InstructionSet:
    """The instruction set that schedules for a processor use."""
    return next(one for one in INSTRUCTION_SETS if one.lanes in (1, cpu.lanes) and one.needs <= cpu.features)


def use_instructions(function: Any, cpu: CpuModel) -> Any:
    """A scheduled PrimFunc with `dot4` and what belongs to it in the instructions of a processor."""
    from tvm import ir
    from tvm_ffi import structural_map

    _register_instructions()
    chosen = instructions_of(cpu)

    def replace_call(call: Any) -> Any:
        from tvm import tirx

        name = str(getattr(call.op, "name", ""))
        if name == OFFSET:
            return tirx.const(chosen.offset, "int32")
        if name == QUOTIENT and cpu.features & _FUSED:
            return call_operator(PRODUCT, *call.args, dtype=str(call.ty))
        if name == QUAD:
            word = _neighbours(call.args)
            return bytes_as_int32(call.args) if word is None else word
        return call

    def replace_sum(addition: Any) -> Any:
        from tvm import tirx

        product = addition.b
        name = str(getattr(getattr(product, "op", None), "name", ""))
        if name not in (DOT4, NARROW):
            return addition
        return tirx.call_intrin("int32", _operator(chosen, name), addition.a, *product.args)

    body = without_inverses(function.body)
    replaced = structural_map(body, (ir.Call, replace_call), order="post")
    if replaced.same_as(function.body):
        return function
    return function.with_body(structural_map(replaced, (ir.prim.Add, replace_sum), order="post"))


def _neighbours(numbers: Any) -> Any:
    """Four bytes that lie next to each other in a buffer, read as one number; None where they do not.

    LLVM would find that too, but forget which buffer it reads, and then keep sums in memory in case it is theirs.
    """
    from tvm import tirx
    from tvm.sym import Analyzer

    first, *others = numbers
    if type(first).__name__ != "TensorLoad":
        return None
    *outer, last = first.indices
    analyzer = Analyzer()
    for place, other in enumerate(others, 1):
        if type(other).__name__ != "TensorLoad" or not other.source.same_as(first.source):
            return None
        indices = [*outer, last + place]
        if any(not analyzer.can_prove_equal(a, b) for a, b in zip(indices, other.indices, strict=True)):
            return None
    word = tirx.reinterpret("int32", first.source.vload([*outer, tirx.Ramp(last, 1, 4)]))
    return raised(word, str(first.ty))


def _operator(instructions: InstructionSet, name: str) -> str:
    return f"{name}_{instructions.name}"


def _register(instructions: InstructionSet, name: str) -> None:
    from tvm import tirx

    narrow = instructions.accumulate_narrow if name == NARROW else None
    accumulate = narrow or instructions.accumulate

    def lower(call: Any) -> Any:
        if str(call.ty) == f"int32x{instructions.lanes}":
            return accumulate(*call.args)
        sums, x, weight = call.args
        return accumulate_bytes(sums, x, weight, instructions.offset)

    operator = _operator(instructions, name)
    register_operator(operator, 3)
    tirx.register_intrin_lowering(operator, target="llvm", f=lower, level=99)


@functools.cache
def _register_instructions() -> None:
    register_operators()
    for instructions in INSTRUCTION_SETS:
        _register(instructions, DOT4)
        _register(instructions, NARROW)
