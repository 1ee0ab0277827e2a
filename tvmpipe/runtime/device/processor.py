"""What instructions the processor of this machine has."""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_LLVM = {  # what Linux and LLVM call differently
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "asimddp": "dotprod",
    "atomics": "lse",
}


def processor_features(cpuinfo: Path = _CPUINFO) -> list[str]:
    """The features that Linux lists, as LLVM spells those that both know; none where there is no such list."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted({_LLVM.get(one, one) for one in value.split()})
    return []
