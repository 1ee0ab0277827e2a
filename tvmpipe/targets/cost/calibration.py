"""How one device compares with another: by what factor its times differ, family by family of primitives."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tvmpipe.targets.cost.features import family
from tvmpipe.targets.store.profile_store import Measurement
from tvmpipe.targets.store.reference_loops import usual_s

_TRUST = 5  # measurements of a family that weigh as much as all others together


def family_offsets(errors: Iterable[tuple[str, float]], trust: float = 0.0) -> dict[str, float]:
    """The median error of each family drawn towards that of all; "" for all. Nothing where there are no errors.

    `errors` are families and log2 of ratios. That of all is drawn towards 0 as if `trust` more errors were 0.
    """
    by_family: dict[str, list[float]] = {}
    for name, error in errors:
        by_family.setdefault(name, []).append(error)
    if not by_family:
        return {}
    count = sum(map(len, by_family.values()))
    middle = statistics.median(error for found in by_family.values() for error in found) * count / (count + trust)
    drawn = {
        name: (len(found) * statistics.median(found) + _TRUST * middle) / (len(found) + _TRUST)
        for name, found in by_family.items()
    }
    return {"": middle, **drawn}


def calibrated(elsewhere: Mapping[str, Measurement], here: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """Measurements of another device as this one would have made them, by what both have measured; `here` goes first.

    Both are of the same target, which is a class of processors: clocks, caches and memories differ. Keys as in
    `profile_store.counting`. Loops that watched are told in units of what they usually take on their device.
    """
    if not elsewhere or not here:
        return {**elsewhere, **here}
    both = [key for key, row in here.items() if key in elsewhere and not row.busy and not elsewhere[key].busy]
    ratios = ((family(here[key].work), here[key].network_s / elsewhere[key].network_s) for key in both)
    found = family_offsets(((name, math.log2(ratio)) for name, ratio in ratios), _TRUST)
    there = (
        (key, _slower(row, 2.0 ** found.get(family(row.work), found.get("", 0.0))))
        for key, row in _relative(elsewhere).items()
    )
    return {**dict(there), **_relative(here)}


def _slower(row: Measurement, factor: float) -> Measurement:
    return replace(
        row,
        seconds=row.seconds * factor,
        low_s=row.low_s * factor,
        high_s=row.high_s * factor,
        cold_s=None if row.cold_s is None else row.cold_s * factor,
    )


def _relative(rows: Mapping[str, Measurement]) -> dict[str, Measurement]:
    usual = usual_s(list(rows.values()))

    def one(row: Measurement) -> Measurement:
        known = len(row.reference_s) == len(usual)
        loops = zip(row.reference_s, usual, strict=True) if known else ()
        return replace(row, reference_s=tuple(seconds / least for seconds, least in loops))

    return {key: one(row) for key, row in rows.items()}
