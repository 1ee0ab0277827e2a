"""Watch a device behind TVM RPC by loops whose usual time is known, and measure its ceilings with them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tvmpipe.profiling.measure import MIN_REPEAT_S, RemoteTimer
from tvmpipe.profiling.peak import Ceiling, memory_reads, multiply_adds, register_tiles
from tvmpipe.profiling.timing import Patience, Reference, Samples, Watch
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import DeviceFacts, Measurement

# Memory is shared by more than cores are, and is never quite at rest.
_SLOWER = (1.15, 1.5)
_KNOWN = 20  # measurements from which the usual time of the loops is known


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
        for place, (loop, slower) in enumerate(zip((loops.tiles, loops.reads), _SLOWER, strict=True))
    ]
    return Watch(references, patience)


def usual_s(rows: Sequence[Measurement]) -> tuple[float, ...]:
    """What the watching loops take on the undisturbed device: the lower decile over `rows`, () where too few say so."""
    known = [row.reference_s for row in rows if len(row.reference_s) == len(_SLOWER)]
    if len(known) < _KNOWN:
        return ()
    return tuple(statistics.quantiles(values, n=10)[0] for values in zip(*known, strict=True))


def undisturbed(rows: Iterable[Measurement]) -> list[Measurement]:
    """Rows of a device that was not busy, as far as is known by now.

    What the loops usually take is known only after some measurements; the first ones are judged here.
    """
    rows = list(rows)
    usual = usual_s(rows)

    def slow(row: Measurement) -> bool:
        loops = zip(row.reference_s, usual, _SLOWER, strict=False)
        return any(seconds > slower * least for seconds, least, slower in loops)

    return [row for row in rows if not row.busy and not slow(row)]


def measure_facts(timer: RemoteTimer, loops: Loops, watch: Watch, processor: str, when: str) -> DeviceFacts:
    """What the device reaches at best."""
    added, read = (loop[0].amount / watch.time(_samples(timer, loop)).seconds for loop in (loops.adds, loops.reads))
    return DeviceFacts(added, read, processor, when)


def _samples(timer: RemoteTimer, loop: tuple[Ceiling, bytes]) -> Samples:
    """Samples as long as those of what is timed: shorter ones fit between another process's turns on the core."""
    ceiling, library = loop
    module, arrays = timer.load(library), timer.send(ceiling.arrays)
    return lambda count: timer.samples(module, arrays, count, min_repeat_s=MIN_REPEAT_S)
