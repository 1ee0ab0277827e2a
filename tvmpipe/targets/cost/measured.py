"""What a store has of a target, with what it has of the same target without instructions for products of bytes.

Kernels of 8-bit integers differ between the two; everything else is the same code, and so are its times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tvmpipe.targets.cost.kernel_costs import multiplies_bytes
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore, measurements, store_key
from tvmpipe.targets.store.stage_times import StageTime

Content = tuple[bytes, Path]
"""As `ProfileStore.content` returns it."""


@dataclass(frozen=True)
class Files:
    """A store's file of a target, and that of its `TargetDescription.plain`, which is None where it is the same one."""

    own: Content
    plain: Content | None

    def read(self) -> list[Measurement]:
        """What holds for the target, oldest first in each file, its own after those of the plain one."""
        own = measurements(*self.own)
        return own if self.plain is None else [*_alike(measurements(*self.plain)), *own]


def files_of(store: ProfileStore, target: TargetDescription, threads: int) -> Files:
    """The files as they are now; equal ones have equal measurements."""
    plain = target.plain
    return Files(store.content(target, threads), None if plain is target else store.content(plain, threads))


def measured(store: ProfileStore, target: TargetDescription, threads: int) -> list[Measurement]:
    """What a store has that holds for a target, oldest first in each file."""
    return files_of(store, target, threads).read()


def store_keys(target: TargetDescription, threads: int) -> set[str]:
    """The names of the files that may have measurements of a target."""
    return {store_key(target, threads), store_key(target.plain, threads)}


def stages(store: ProfileStore, target: TargetDescription, threads: int) -> list[StageTime]:
    """What stages took on a target; of the plain one those that call nothing but what was measured and is the same."""
    own = store.stages(target, threads)
    if target.plain is target:
        return own
    same = {row.work.key for row in _alike(store.read(target.plain, threads))}
    return [*(row for row in store.stages(target.plain, threads) if same.issuperset(row.calls)), *own]


def _alike(rows: Iterable[Measurement]) -> list[Measurement]:
    return [row for row in rows if not multiplies_bytes(row.work.kernel)]
