"""Which primitives to measure again: what another measurement, some time later, has not confirmed.

A neighbour on a shared host may stay for as long as a measurement takes, and look like the primitive's own time. It is
seldom there again at the next pass over all primitives, some minutes later, and never makes anything faster. The rule
asks measurements alone, not what a model expects, so that repeating cannot draw measurements towards a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvmpipe.targets.store.profile_store import Measurement

AGREE = 1.06
"""Two undisturbed measurements of a primitive confirm the fastest of all when they take this much longer at most."""


def unsettled(keys: Sequence[str], rows: Iterable[Measurement], passes: int) -> list[str]:
    """Those of some `Measurement.key`s to measure once more, least often measured first, else in their order.

    One undisturbed measurement settles a primitive where there is only one pass; two that agree, or as many of any
    kind as there are passes, where there are more.
    """
    found: dict[str, list[Measurement]] = {key: [] for key in keys}
    for row in rows:
        if row.key in found:
            found[row.key].append(row)
    pending = [key for key in found if not _settled(found[key], passes)]
    return sorted(pending, key=lambda key: len(found[key]))


def _settled(rows: Sequence[Measurement], passes: int) -> bool:
    quiet = [row for row in rows if not row.busy]
    if not quiet:
        return False
    return len(rows) >= passes or all(
        sum(seconds(row) <= AGREE * min(map(seconds, rows)) for row in quiet) > 1 for seconds in (_warm, _cold)
    )


def _warm(row: Measurement) -> float:
    return row.seconds


def _cold(row: Measurement) -> float:
    return row.network_s
