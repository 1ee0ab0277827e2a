"""What reference loops say of measurements: which were taken on a device that had other work.

While primitives are timed, loops are timed as well that take the same time whenever nothing else runs
(`profiling.watch`): one in registers and caches, one that reads memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from tvmpipe.targets.store.profile_store import Measurement

SLOWER = (1.15, 1.5)
"""Of each loop: how many times its usual time says that a device is disturbed. Memory is shared by more than cores
are, and is never quite at rest."""

_KNOWN = 20  # measurements from which the usual time of the loops is known


def usual_s(rows: Sequence[Measurement]) -> tuple[float, ...]:
    """What the watching loops take on the undisturbed device: the lower decile over `rows`, () where too few say so."""
    known = [row.reference_s for row in rows if len(row.reference_s) == len(SLOWER)]
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
        loops = zip(row.reference_s, usual, SLOWER, strict=False)
        return any(seconds > slower * least for seconds, least, slower in loops)

    return [row for row in rows if not row.busy and not slow(row)]
