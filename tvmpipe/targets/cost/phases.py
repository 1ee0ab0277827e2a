"""What a kernel's loops make of a primitive: steps of register tiles, and bytes that pass from one cache to the next.

Each kernel follows its own loops on one target (`passes.kernels.NAME.cost`) and counts with what is here: how often a
tile of results is accumulated, with the ragged tiles at the edges, and what must be read again because it does not stay
in a cache. Caches are nominal, `FIRST_BYTES` and `SECOND_BYTES`, the same for all targets: what a cache of another size
does to a primitive is learned from measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvmpipe.targets.cost.model import Work

FIRST_BYTES = 32 << 10
SECOND_BYTES = 1 << 20
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Phases:
    """What a primitive does on a target, one thread's share of it where it is computing.

    Attributes:
        cycles: of the register tiles' multiplications and loads, at best.
        transform: operations of Winograd's transforms.
        second, third: bytes that are read again from a level 2 cache, and from beyond.
        padded: bytes of padded or packed copies.
        rows, columns: the register tile, in rows and in blocks of 16; 0 where there is none.
        fill: which share of the register tiles' results is wanted; 1 where there are no tiles.
        tiles: register tiles in all.
        chunk: bytes that are worked on at a time, of weights mostly.
    """

    cycles: float = 0.0
    transform: float = 0.0
    second: float = 0.0
    third: float = 0.0
    padded: float = 0.0
    rows: int = 0
    columns: int = 0
    fill: float = 1.0
    tiles: float = 0.0
    chunk: float = 0.0


class RereadBytes:
    """Bytes that are read again, added up by where they come from: a level 2 cache, or beyond."""

    def __init__(self) -> None:
        self.second = 0.0
        self.third = 0.0

    def add(self, size: float, times: float, among: float) -> None:
        """`size` bytes are read `times` more, each time after `among` bytes of all kinds have passed."""
        if times <= 0 or among <= FIRST_BYTES:
            return
        if among <= SECOND_BYTES:
            self.second += size * times
        else:
            self.third += size * times


def far_share(touched: float) -> float:
    """Which share of what the primitive before has written no longer is in a level 2 cache when it is read."""
    return min(max((touched / SECOND_BYTES - 1) / 2, 0.0), 1.0)


def copied_bytes(work: Work) -> float:
    """Bytes that are written besides the results of each operator."""
    return float(max(work.inner_bytes - max(len(work.operators), 1) * work.output_bytes, 0))
