"""What LLVM knows of processors: which there are, what features they have, how wide their vectors are."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable

ARCHITECTURES = ("aarch64", "riscv64", "x86_64")
"""Those that stages are compiled and linked for."""

WIDEST_BITS = 512


class UnknownProcessorError(ValueError):
    """Something that LLVM does not know; `key` says what of a target: "triple", "cpu" or "features"."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def check_processor(triple: str, cpu: str, features: Iterable[str]) -> None:
    """Raise UnknownProcessorError unless code can be generated for this processor."""
    architecture, *system = triple.split("-")
    well_formed = re.fullmatch(r"[A-Za-z0-9_]+(-[A-Za-z0-9_.]+){1,3}", triple) and len(triple) <= 64
    if not well_formed or architecture not in ARCHITECTURES or "linux" not in system:
        allowed = ", ".join(f"{one}-linux-gnu" for one in ARCHITECTURES)
        raise UnknownProcessorError("triple", f"no code can be made for the triple {triple!r}; allowed: {allowed}")
    if cpu not in _processors(triple):
        known = _alike(cpu, _processors(triple))
        raise UnknownProcessorError("cpu", f"LLVM knows no {architecture} processor {cpu!r}; it knows {known}")
    for feature in features:
        sign, name = feature[:1], feature[1:]
        if sign not in ("+", "-"):
            raise UnknownProcessorError("features", f"feature {feature!r} does not begin with '+' or '-'")
        if name not in _features(triple):
            known = _alike(name, _features(triple))
            raise UnknownProcessorError("features", f"LLVM knows no {architecture} feature {name!r}; it knows {known}")


@functools.cache
def processor_features(triple: str, cpu: str, features: tuple[str, ...]) -> frozenset[str]:
    """What a processor can do, with `features` added or taken away ("+dotprod"), as LLVM spells it ("dotprod")."""
    from tvm.target import codegen

    return frozenset(map(str, codegen.llvm_get_cpu_features(_target(triple, cpu, features))))


def vector_bits(triple: str, cpu: str, features: Iterable[str]) -> int:
    """Bits of the widest SIMD register that schedules use on a processor that `check_processor` has passed."""
    architecture = triple.split("-", 1)[0]
    if architecture == "x86_64":
        # `llvm_get_vector_width` says 512 of every x86-64 processor.
        has = processor_features(triple, cpu, tuple(features))
        return 512 if "avx512f" in has else 256 if "avx" in has else 128
    if architecture == "aarch64":
        return 128  # NEON; the length of SVE's registers is not known before code runs
    from tvm.target import codegen

    return min(max(int(codegen.llvm_get_vector_width(_target(triple, cpu, tuple(features)))), 128), WIDEST_BITS)


def vector_registers(triple: str, bits: int) -> int:
    """How many such registers there are."""
    return 16 if triple.startswith("x86_64-") and bits < 512 else 32


@functools.cache
def _processors(triple: str) -> tuple[str, ...]:
    from tvm.target import codegen

    return tuple(sorted(map(str, codegen.llvm_get_cpu_archlist(_target(triple, "", ())))))


@functools.cache
def _features(triple: str) -> frozenset[str]:
    """All that some processor has: LLVM itself only prints that it does not know one, and goes on."""
    return frozenset(one for cpu in _processors(triple) for one in processor_features(triple, cpu, ()))


def _target(triple: str, cpu: str, features: tuple[str, ...]) -> object:
    import tvm

    attributes: dict[str, object] = {"kind": "llvm", "mtriple": triple}
    if cpu:
        attributes["mcpu"] = cpu
    if features:
        attributes["mattr"] = list(features)
    return tvm.target.Target(attributes)


def _alike(name: str, known: Iterable[str]) -> str:
    """Names to choose from: the nearest, else the first ones."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, 4)
    return ", ".join(found) if found else f"{', '.join(names[:6])} and {len(names) - 6} more"
