"""How many tokens go into a step, where a model has buckets for several numbers of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tvmpipe.manifest import Manifest


@dataclass(frozen=True)
class Chunk:
    """A bucket: how many tokens its step takes, how many seconds that should take, and whether fewer may be in it."""

    tokens: int
    seconds: float
    padded: bool


@dataclass(frozen=True)
class Chunks:
    """The buckets of a model, the smallest first."""

    each: tuple[Chunk, ...]

    @classmethod
    def of(cls, manifest: Manifest, tokens: str) -> Chunks:
        """Those of a bundle whose input `tokens` is [1, tokens]; steps take as long as the plan says of stages."""
        found = []
        for number, bucket in enumerate(manifest.buckets):
            extent = next(spec.shape[1] for spec in bucket.inputs if spec.name == tokens)
            seconds = sum(stage.predicted_compute_s for stage in manifest.plan.stages_of(number))
            found.append(Chunk(extent, seconds, not set(bucket.exact) and bool(bucket.extents)))
        return cls(tuple(sorted(found, key=lambda chunk: chunk.tokens)))

    def split(self, count: int, room: int) -> Sequence[int]:
        """How many of `count` tokens go into each step, so that it takes the least time in all.

        `room` elements are left in the sequence's states, which a step that is padded needs as well. Raises ValueError
        where no steps have so many tokens.
        """
        if count > room:
            raise ValueError(f"{count} tokens do not fit where there is room for {room}")
        best = _fastest(self.each, count, room)
        if best is None:
            sizes = ", ".join(str(chunk.tokens) for chunk in self.each)
            raise ValueError(f"no steps of {sizes} tokens make {count}")
        return best


@lru_cache(maxsize=4096)
def _fastest(each: tuple[Chunk, ...], count: int, room: int) -> tuple[int, ...] | None:
    """Large steps come first. What is left behind whole steps goes into one that is padded, or into smaller ones."""
    costs: list[float | None] = [0.0] + [None] * count
    choice = [0] * (count + 1)
    for left in range(1, count + 1):
        for chunk in each:
            taken = min(chunk.tokens, left)
            # `left` are the last ones: with all before them, those of a padded step must fit.
            if chunk.tokens > left and (not chunk.padded or count - left + chunk.tokens > room):
                continue
            rest = costs[left - taken]
            # Of equal costs the larger step.
            if rest is not None and (costs[left] is None or rest + chunk.seconds <= costs[left]):  # type: ignore[operator]
                costs[left], choice[left] = rest + chunk.seconds, taken
    if costs[count] is None:
        return None
    found = []
    left = count
    while left:
        found.append(choice[left])
        left -= choice[left]
    return tuple(sorted(found, reverse=True))
