"""The processors stages are compiled for, by the names people use in `cluster.toml`.

Peak figures are nominal: cores, clock and vector units from the vendors' manuals. `sustained_fraction` is the
share of that peak our present kernels reach on whole networks; it is what turns a peak into an estimate. Those of
x86-64 are the middle of what `benchmarks/roofline.py` measured on one AVX-512 server; on Arm nobody measured yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvmpipe.errors import ClusterError


@dataclass(frozen=True)
class TargetDescription:
    """One kind of processor.

    Attributes: `triple` and `cpu` as LLVM spells them, `vector_bits` the width of a SIMD register, `clock_hz`
    the nominal clock, `flops_per_cycle` fp32 operations a core retires per cycle at best (an FMA counts two),
    `memory_bandwidth_bps` bytes per second of the whole chip, `sustained_fraction` as above.
    """

    name: str
    triple: str
    cpu: str
    vector_bits: int
    vector_registers: int
    cores: int
    clock_hz: float
    flops_per_cycle: float
    memory_bandwidth_bps: float
    sustained_fraction: float = 0.6  # not measured

    @property
    def architecture(self) -> str:
        """The first part of the triple: "x86_64", "aarch64"."""
        return self.triple.split("-", 1)[0]

    def runs(self, other: TargetDescription) -> bool:
        """Whether code for `other` runs here, as far as architecture and vectors say."""
        return self.architecture == other.architecture and self.vector_bits >= other.vector_bits

    def peak_flops(self, threads: int) -> float:
        """Nominal fp32 FLOP/s of `threads` cores (never more than the chip has)."""
        return min(threads, self.cores) * self.clock_hz * self.flops_per_cycle

    def tvm_target(self, threads: int) -> Any:
        """The `tvm.target.Target` that code for this processor is generated with."""
        import tvm

        return tvm.target.Target({"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu, "num-cores": threads})


_X86_SUSTAINED = {128: 0.95, 256: 0.75, 512: 0.70}  # by vector width

_X86 = TargetDescription(
    name="x86-64-v3",
    triple="x86_64-linux-gnu",
    cpu="x86-64-v3",
    vector_bits=256,
    vector_registers=16,
    cores=4,
    clock_hz=3.0e9,
    flops_per_cycle=32,  # two 8-lane FMA units
    memory_bandwidth_bps=20e9,
    sustained_fraction=_X86_SUSTAINED[256],
)

_BUILTIN = {
    target.name: target
    for target in (
        _X86,
        # SSE4.2: one 4-lane multiplier and one 4-lane adder, no FMA.
        replace(
            _X86,
            name="x86-64-v2",
            cpu="x86-64-v2",
            vector_bits=128,
            flops_per_cycle=8,
            sustained_fraction=_X86_SUSTAINED[128],
        ),
        replace(
            _X86,
            name="x86-64-v4",
            cpu="x86-64-v4",
            vector_bits=512,
            vector_registers=32,
            flops_per_cycle=64,
            sustained_fraction=_X86_SUSTAINED[512],
        ),
        # Raspberry Pi 4: 4 Cortex-A72 at 1.5 GHz, one 4-lane FMA per cycle, LPDDR4-3200 on a 32-bit bus.
        TargetDescription("pi4", "aarch64-linux-gnu", "cortex-a72", 128, 32, 4, 1.5e9, 8, 4e9),
        # Raspberry Pi 5: 4 Cortex-A76 at 2.4 GHz, two 4-lane FMAs per cycle, LPDDR4X-4267 on a 32-bit bus.
        TargetDescription("pi5", "aarch64-linux-gnu", "cortex-a76", 128, 32, 4, 2.4e9, 16, 10e9),
        # CPU side of the Jetson boards.
        TargetDescription("jetson-nano", "aarch64-linux-gnu", "cortex-a57", 128, 32, 4, 1.43e9, 8, 15e9),
        TargetDescription("jetson-orin", "aarch64-linux-gnu", "cortex-a78ae", 128, 32, 6, 1.5e9, 16, 60e9),
    )
}


_X86_LEVELS = {  # of the x86-64 psABI, best first: the instructions that one has and the next has not
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v2": ("popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"),
}


def target_names() -> list[str]:
    """Names that `cluster.toml` may use."""
    return ["native", *_BUILTIN]


def find_target(name: str) -> TargetDescription:
    """The built-in target called `name`; "native" is the machine this runs on, on x86-64 the best level it has.

    Raises ClusterError when there is no such target.
    """
    if name == "native":
        return _describe_host()
    try:
        return _BUILTIN[name]
    except KeyError:
        raise ClusterError(f"target {name!r} is not known; allowed: {', '.join(target_names())}") from None


def _describe_host() -> TargetDescription:
    import psutil
    import tvm
    from tvm.target import codegen

    architecture = codegen.llvm_get_system_triple().split("-", 1)[0]
    triple, cpu = f"{architecture}-linux-gnu", codegen.llvm_get_system_cpu()
    probe = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if architecture == "x86_64":
        for level, features in _X86_LEVELS.items():
            if codegen.llvm_cpu_has_features(list(features), probe):
                # Not the processor itself: for some, Zen 5 among them, LLVM unrolls the loops around a register tile
                # until the tile no longer fits, and 197x4096x1024 takes 2.2 times as long. What was measured of the
                # level holds as well.
                return replace(_BUILTIN[level], name="native", cores=cores)
    vector_bits = int(codegen.llvm_get_vector_width(probe))
    # The clock is the nominal one: a measured one would make two compilations of one model differ.
    return TargetDescription(
        name="native",
        triple=triple,
        cpu=cpu,
        vector_bits=vector_bits,
        vector_registers=32 if vector_bits == 512 or architecture == "aarch64" else 16,
        cores=cores,
        clock_hz=3.0e9,
        flops_per_cycle=2 * 2 * vector_bits / 32,  # two FMA units is the rule since Haswell and Cortex-A76
        memory_bandwidth_bps=20e9,
        sustained_fraction=_X86_SUSTAINED.get(vector_bits, 0.6) if architecture == "x86_64" else 0.6,
    )
