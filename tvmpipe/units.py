"""Sizes, rates and durations as people write them: "512MiB", "100Mbps", "1ms"."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)\s*")

_SIZE = {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RATE = {
    **{f"{unit}/s": factor for unit, factor in _SIZE.items() if unit},
    "kbps": 1e3 / 8,
    "Kbps": 1e3 / 8,
    "Mbps": 1e6 / 8,
    "Gbps": 1e9 / 8,
}
_FREQUENCY = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9}
_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def _parse(value: object, units: dict[str, float], what: str, example: str) -> float:
    match = _NUMBER.fullmatch(str(value))
    if isinstance(value, bool) or match is None or match.group(2) not in units:
        names = ", ".join(unit for unit in units if unit)
        raise ValueError(f"{value!r} is not a {what}; write a number and one of {names}, such as {example!r}")
    return float(match.group(1)) * units[match.group(2)]


def parse_size(value: object) -> int:
    """Bytes from a number or a string such as "512MiB"."""
    return int(_parse(value, dict(_SIZE), "size", "512MiB"))


def parse_rate(value: object) -> float:
    """Bytes per second from a string such as "100Mbps" or "40MB/s"."""
    return _parse(value, _RATE, "bandwidth", "100Mbps")


def parse_frequency(value: object) -> float:
    """Hertz from a string such as "2.4GHz"."""
    return _parse(value, _FREQUENCY, "frequency", "2.4GHz")


def parse_duration(value: object) -> float:
    """Seconds from a string such as "1ms"."""
    return _parse(value, _TIME, "duration", "1ms")


def format_size(size_bytes: float) -> str:
    """A size for people: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.2f} GiB"


def format_duration(seconds: float) -> str:
    """A duration for people: 0.0123 -> "12.30 ms"."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
