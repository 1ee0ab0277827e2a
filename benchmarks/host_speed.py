"""Whether this machine is now as fast as when costs were measured on it, by the loops that watched then."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tvmpipe.targets.peak import Ceiling, multiply_adds, register_tiles
from tvmpipe.targets.profile_store import ProfileStore
from tvmpipe.targets.target import TargetDescription
from tvmpipe.targets.watch import usual_s

_APART = 1.15  # as for the profiler

_RUNS = 9


@dataclass(frozen=True)
class _Loop:
    usual_s: float
    samples: Callable[[], list[float]]


class HostSpeed:
    """Loops for some targets, on one thread of this process, and what they took when a store was filled."""

    def __init__(self, store: ProfileStore, targets: Collection[TargetDescription]) -> None:
        self._loops = [loop for target in targets if (loop := _loop(store, target)) is not None]

    def slower(self) -> float:
        """Seconds now over seconds then, of the target where that is furthest from 1; 1 where nobody knows."""
        ratios = (statistics.median(loop.samples()) / loop.usual_s for loop in self._loops)
        return max(ratios, key=distance, default=1.0)


def distance(slower: float) -> float:
    """How far a machine's speed is from what it was: 0 where it is the same, the same for twice and for half."""
    return abs(math.log(slower))


def is_alike(slower: float) -> bool:
    """Whether a machine is as fast as it was."""
    return distance(slower) <= math.log(_APART)


def _loop(store: ProfileStore, target: TargetDescription) -> _Loop | None:
    """Register tiles, multiply-adds in registers where the store has measurements that no tiles watched."""
    usual, facts = usual_s(store.read(target, 1)), store.device(target, 1)
    if usual:
        return _Loop(usual[0], _timed(register_tiles(target, 1), target))
    if facts is not None:
        adds = multiply_adds(target, 1)
        return _Loop(adds.amount / facts.peak_flops, _timed(adds, target))
    return None


def _timed(ceiling: Ceiling, target: TargetDescription) -> Callable[[], list[float]]:
    import tvm

    with tvm.transform.PassContext(opt_level=3):
        library = tvm.compile(tvm.IRModule({"loop": ceiling.function}), target.tvm_target(1))
    arguments = [tvm.runtime.tensor(array) for array in ceiling.arrays]
    timer = library.jit().time_evaluator("loop", tvm.cpu(), number=1, repeat=_RUNS)
    return lambda: list(timer(*arguments).results)
