"""Lines of the tables: what was tried at one door, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """How much to try: `mutations` of each file, by numbers from `first` on, seeded with `seed`."""

    mutations: int = 1000
    first: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """Attempts at one door.

    Attributes: `accepted` did no harm, `refused` ended in one sentence; `faults` sentences about those that did
    neither, each with what repeats it; `slowest_s`, `most_written_bytes` and `most_memory_bytes` of any attempt, the
    latter two None where they were not measured.
    """

    door: str
    tried: int
    accepted: int
    refused: int
    faults: Sequence[str]
    slowest_s: float
    most_written_bytes: int | None = None
    most_memory_bytes: int | None = None


@dataclass(frozen=True)
class Intrusion:
    """One attempt of a stranger. `result` is "ok" when what was `expected` happened, "FAULT" when something else did,
    and "not tried" where it cannot be tried here, for the reason in `happened`."""

    door: str
    tried: str
    expected: str
    happened: str
    result: str

    @property
    def faults(self) -> Sequence[str]:
        """As a row's."""
        return [self.happened] if self.result == "FAULT" else []


Check = Callable[[Options], Iterator[Row | Intrusion]]
"""One door, or several of a kind."""
