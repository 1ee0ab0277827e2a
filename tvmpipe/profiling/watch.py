"""Watch a device behind TVM RPC by loops whose usual time is known, and measure its ceilings with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvmpipe.profiling.measure import MIN_REPEAT_S, RemoteTimer
from tvmpipe.profiling.peak import Ceiling, memory_reads, multiply_adds, register_tiles
from tvmpipe.profiling.timing import Patience, Reference, Samples, Watch
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import DeviceFacts, Measurement
from tvmpipe.targets.store.reference_loops import SLOWER, usual_s


@dataclass(frozen=True)
class Loops:
    """The loops of `profiling.peak` with their libraries: `tiles` and `reads` watch, `adds` says what the peak is."""

    tiles: tuple[Ceiling, bytes]
    reads: tuple[Ceiling, bytes]
    adds: tuple[Ceiling, bytes]


Compile = Callable[[object, TargetDescription, int], bytes]
"""Makes a library of a TIR function for a target with so many threads."""


def loops_of(target: TargetDescription, threads: int, compile_function: Compile) -> Loops:
    """The loops for a target."""
    made = [make(target, threads) for make in (register_tiles, memory_reads, multiply_adds)]
    tiles, reads, adds = ((one, compile_function(one.function, target, threads)) for one in made)
    return Loops(tiles, reads, adds)


def watch_over(timer: RemoteTimer, loops: Loops, rows: Sequence[Measurement], patience: Patience) -> Watch:
    """A watch over a device that `rows` were measured on before."""
    usual = usual_s(rows)
    references = [
        Reference(_samples(timer, loop), slower, usual[place] if usual else None)
        for place, (loop, slower) in enumerate(zip((loops.tiles, loops.reads), SLOWER, strict=True))
    ]
    return Watch(references, patience)


def measure_facts(timer: RemoteTimer, loops: Loops, watch: Watch, processor: str, when: str) -> DeviceFacts:
    """What the device reaches at best."""
    added, read = (loop[0].amount / watch.time(_samples(timer, loop)).seconds for loop in (loops.adds, loops.reads))
    return DeviceFacts(added, read, processor, when)


def _samples(timer: RemoteTimer, loop: tuple[Ceiling, bytes]) -> Samples:
    """Samples as long as those of what is timed: shorter ones fit between another process's turns on the core."""
    ceiling, library = loop
    module, arrays = timer.load(library), timer.send(ceiling.arrays)
    return lambda count: timer.samples(module, arrays, count, min_repeat_s=MIN_REPEAT_S)
