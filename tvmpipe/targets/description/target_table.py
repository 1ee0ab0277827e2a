"""`[[target]]` tables, of a cluster file or of the boards that come with tvmpipe -> target descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from tvmpipe.errors import ClusterError
from tvmpipe.targets.description import llvm
from tvmpipe.targets.description.target import LLVM, UNMEASURED_FRACTION, TargetDescription
from tvmpipe.units import parse_frequency, parse_rate

_WIDTHS = (128, 256, 512)

T = TypeVar("T")


def _width(bits: int) -> int:
    if bits not in _WIDTHS:
        raise ValueError(f"{bits} is no width of vectors; allowed: {', '.join(map(str, _WIDTHS))}")
    return bits


class TargetEntry(BaseModel):
    """A `[[target]]` table as it is written, in the units of `TargetDescription`; None is what it does not say."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
    like: str | None = None
    triple: str | None = None
    cpu: str | None = None
    features: Annotated[list[str], Field(max_length=64)] | None = None
    vector_bits: Annotated[int, AfterValidator(_width)] | None = None
    vector_registers: Annotated[int, Field(ge=8, le=64)] | None = None
    cores: Annotated[int, Field(ge=1, le=1024)] | None = None
    clock: Annotated[float, BeforeValidator(parse_frequency), Field(gt=0)] | None = None
    flops_per_cycle: Annotated[float, Field(gt=0)] | None = None
    memory_bandwidth: Annotated[float, BeforeValidator(parse_rate), Field(gt=0)] | None = None
    sustained_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    codegen: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)] | None = None


class TargetTableError(ClusterError):
    """What is wrong with a `[[target]]` table, and with which of its keys."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def own_target(entry: TargetEntry, known: Sequence[TargetDescription]) -> TargetDescription:
    """A user's board; `known` are the targets that it may be like, and whose names are taken.

    Raises TargetTableError when its name is taken, nothing is called what it is like, something is missing, or LLVM
    knows no such processor.
    """
    names = [target.name for target in known]
    if entry.name in names:
        raise TargetTableError("name", f"target name {entry.name!r} is taken; these are: {', '.join(names)}")
    if entry.like is not None and entry.like not in names:
        raise TargetTableError("like", f"target {entry.like!r} is not known; allowed: {', '.join(names)}")
    base = _base(entry, known)
    triple, cpu, features = _processor(entry, base)
    try:
        llvm.check_processor(triple, cpu, features)
    except llvm.UnknownProcessorError as error:
        raise TargetTableError(error.key, str(error)) from None
    has_bits = llvm.vector_bits(triple, cpu, features)
    if entry.vector_bits is not None and entry.vector_bits > has_bits:
        raise TargetTableError("vector_bits", f"vector_bits is {entry.vector_bits}, those of {cpu} are {has_bits}")
    return replace(described_target(entry, known), board=entry.name)


def described_target(entry: TargetEntry, known: Sequence[TargetDescription]) -> TargetDescription:
    """What a table says, without asking whether it can be so; raises TargetTableError when something is missing.

    Without `like`, vectors are as wide as LLVM says, and a core has two FMA units, as is the rule since Haswell and
    Cortex-A76. With `like` but another processor, vectors are that processor's, and FMA units as many.
    """
    base = _base(entry, known)
    triple, cpu, features = _processor(entry, base)
    same = base is not None and (base.triple, base.cpu, base.features) == (triple, cpu, features)
    bits = entry.vector_bits or (base.vector_bits if base and same else llvm.vector_bits(triple, cpu, features))
    registers = base.vector_registers if base and same and base.vector_bits == bits else None
    flops_per_cycle = base.flops_per_cycle * bits / base.vector_bits if base else 2 * 2 * bits / 32
    like = [one for one in (base, *known) if one and one.vector_bits == bits and one.triple == triple]
    return TargetDescription(
        name=entry.name,
        triple=triple,
        cpu=cpu,
        vector_bits=bits,
        vector_registers=entry.vector_registers or registers or llvm.vector_registers(triple, bits),
        cores=_said("cores", entry.cores, base.cores if base else None),
        clock_hz=_said("clock", entry.clock, base.clock_hz if base else None),
        flops_per_cycle=entry.flops_per_cycle or flops_per_cycle,
        memory_bandwidth_bps=_said(
            "memory_bandwidth", entry.memory_bandwidth, base.memory_bandwidth_bps if base else None
        ),
        sustained_fraction=entry.sustained_fraction or (like[0].sustained_fraction if like else UNMEASURED_FRACTION),
        features=features,
        codegen=entry.codegen or (base.codegen if base else LLVM),
    )


def _base(entry: TargetEntry, known: Sequence[TargetDescription]) -> TargetDescription | None:
    return next((target for target in known if target.name == entry.like), None)


def _processor(entry: TargetEntry, base: TargetDescription | None) -> tuple[str, str, tuple[str, ...]]:
    """Triple, processor and features; features are the processor's own unless the table says some."""
    triple = _said("triple", entry.triple, base.triple if base else None)
    cpu = _said("cpu", entry.cpu, base.cpu if base else None)
    kept = base.features if base and (base.triple, base.cpu) == (triple, cpu) else ()
    return triple, cpu, kept if entry.features is None else tuple(entry.features)


def _said(key: str, own: T | None, base: T | None) -> T:
    value = base if own is None else own
    if value is None:
        raise TargetTableError("name", f"[[target]] needs the key {key!r}, or 'like' and the name of a target")
    return value
