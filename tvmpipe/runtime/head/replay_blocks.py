"""A sequence's history in few long steps, where it has to be computed again. Pure: no tensors, threads, sockets, clock.

A text of two thousand tokens that came one by one is then eight steps of 256. What a step leaves in states that grow
does not depend on how its elements are divided into steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvmpipe.manifest import Manifest


@dataclass(frozen=True)
class Taken:
    """A step that was taken: its number as a sample, elements before it, and elements of its own."""

    sample: int
    start: int
    elements: int


@dataclass(frozen=True)
class Block:
    """Steps that become one of a bucket."""

    steps: tuple[Taken, ...]
    bucket: int


@dataclass(frozen=True)
class StepSizes:
    """Elements of a step in each bucket, whether fewer may be in it, and how many a sequence may have."""

    sizes: tuple[int, ...]
    padded: tuple[bool, ...]
    context: int

    def blocks(self, steps: Iterable[Taken]) -> list[Block]:
        """Steps in their order, as many as can together: what stays by itself is in no block."""
        found: list[Block] = []
        run: list[Taken] = []
        largest = max(self.sizes)
        for step in steps:
            follows = not run or step.start == run[-1].start + run[-1].elements
            if not follows or sum(one.elements for one in run) + step.elements > largest:
                found += self._closed(run)
                run = []
            run.append(step)
        return found + self._closed(run)

    def _closed(self, run: Sequence[Taken]) -> list[Block]:
        """Blocks of steps that together are no more than the largest bucket takes; some may be left over."""
        for end in range(len(run), 1, -1):
            bucket = self._bucket_of(run[0].start, sum(step.elements for step in run[:end]))
            if bucket is not None:
                return [Block(tuple(run[:end]), bucket), *self._closed(run[end:])]
        return self._closed(run[1:]) if len(run) > 2 else []

    def _bucket_of(self, start: int, elements: int) -> int | None:
        """The smallest bucket that takes so many elements behind `start`."""
        fitting = [
            (size, bucket)
            for bucket, size in enumerate(self.sizes)
            if (size == elements or (size > elements and self.padded[bucket])) and start + size <= self.context
        ]
        return min(fitting)[1] if fitting else None


def step_dimension(manifest: Manifest) -> str | None:
    """The open dimension that says how many elements a sample adds to states that grow; None where there is none."""
    sequences = manifest.sequences
    growing = () if sequences is None else [state.adds for state in sequences.states if state.axis is not None]
    extents = [bucket.extents for bucket in manifest.buckets]
    alike = (name for name in extents[0] if growing and tuple(one[name] for one in extents) == growing[0])
    return next(alike, None)


def step_sizes(manifest: Manifest) -> StepSizes | None:
    """How steps of a model may be joined; None where a state is replaced, or an input has nothing of each element."""
    dimension, sequences = step_dimension(manifest), manifest.sequences
    if dimension is None or sequences is None or any(state.axis is None for state in sequences.states):
        return None
    assert manifest.open is not None
    assert sequences.context is not None
    axes = manifest.open.axes
    if any(dimension not in axes.get(spec.name, ()) for spec in manifest.sample_inputs):
        return None
    padded = all(spec.name in manifest.open.pads for spec in manifest.sample_inputs)
    return StepSizes(
        tuple(bucket.extents[dimension] for bucket in manifest.buckets),
        tuple(padded and dimension not in bucket.exact for bucket in manifest.buckets),
        sequences.context,
    )
