"""How many elements go into each step of a sequence, where a model has buckets for several numbers of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Chunk:
    """A bucket: how many elements its step has, how many seconds that should take, and whether fewer may be in it."""

    elements: int
    seconds: float
    padded: bool


@dataclass(frozen=True)
class Chunks:
    """The buckets of a model, the smallest first."""

    each: tuple[Chunk, ...]

    def split(self, count: int, room: int) -> Sequence[int]:
        """How many of `count` elements go into each step, so that it takes the least time in all.

        `room` elements are left in the sequence's states, which a step that is padded needs as well. Raises ValueError
        where no steps have so many.
        """
        if count > room:
            raise ValueError(f"{count} elements do not fit where there is room for {room}")
        best = _fastest(self.each, count, room)
        if best is None:
            sizes = ", ".join(str(chunk.elements) for chunk in self.each)
            raise ValueError(f"no steps of {sizes} elements make {count}")
        return best


@lru_cache(maxsize=4096)
def _fastest(each: tuple[Chunk, ...], count: int, room: int) -> tuple[int, ...] | None:
    """Of what takes equally long, large steps come first. One that is padded is the last."""
    costs: list[float | None] = [0.0] + [None] * count
    choice = [0] * (count + 1)
    for left in range(1, count + 1):
        for chunk in each:
            taken = min(chunk.elements, left)
            # `left` are the last ones: with all before them, those of a padded step must fit.
            if chunk.elements > left and (not chunk.padded or count - left + chunk.elements > room):
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
    return tuple(found)
