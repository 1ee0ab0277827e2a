"""The machine this runs on, as a target."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tvmpipe.targets.description import llvm
from tvmpipe.targets.description.target import TargetDescription

NATIVE = "native"

_HOST_FEATURES = "tvm.codegen.llvm.GetHostCPUFeatures"

_X86_LEVELS = {  # of the x86-64 psABI, best first: the instructions that one has and the next has not
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v2": ("popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"),
}
_BYTE_PRODUCTS = {"x86-64-v4": "avx512vnni", "x86-64-v3": "avxvnni"}  # that processors of a level may have besides


def level_of(features: Collection[str], boards: Sequence[TargetDescription]) -> str | None:
    """The best level of x86-64 among `boards` whose instructions a processor with these features has."""
    has = set(features)
    for level, needed in _X86_LEVELS.items():
        if has.issuperset(needed):
            name = f"{level}-vnni" if _BYTE_PRODUCTS.get(level) in has else level
            return next((board.name for board in boards if board.name == name), None)
    return None


def describe_host(boards: Sequence[TargetDescription]) -> TargetDescription:
    """This machine: on x86-64 the best level of `boards` that it has, elsewhere what LLVM says of its processor.

    The level is with the instructions for products of bytes where the machine has them: `boards` calls that NAME-vnni.
    """
    import psutil
    import tvm
    from tvm.target import codegen

    architecture = codegen.llvm_get_system_triple().split("-", 1)[0]
    triple, cpu = f"{architecture}-linux-gnu", codegen.llvm_get_system_cpu()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if architecture == "x86_64":
        # Of the machine itself: a virtual one may lack some of what processors of its name have.
        has = {str(name) for name, there in tvm.get_global_func(_HOST_FEATURES)().items() if there}
        # Not the processor itself: for some, Zen 5 among them, LLVM unrolls the loops around a register tile until the
        # tile no longer fits, and 197x4096x1024 takes 2.2 times as long. What was measured of the level holds as well.
        level = level_of(has, boards)
        if level is not None:
            return replace(next(board for board in boards if board.name == level), name=NATIVE, cores=cores)
    bits = llvm.vector_bits(triple, cpu, ())
    # The clock is the nominal one: a measured one would make two compilations of one model differ.
    return TargetDescription(
        name=NATIVE,
        triple=triple,
        cpu=cpu,
        vector_bits=bits,
        vector_registers=llvm.vector_registers(triple, bits),
        cores=cores,
        clock_hz=3.0e9,
        flops_per_cycle=2 * 2 * bits / 32,  # two FMA units is the rule since Haswell and Cortex-A76
        memory_bandwidth_bps=20e9,
    )
