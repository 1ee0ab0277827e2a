"""Seconds of each primitive on each device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tvmpipe.targets.cost.model import CALL_S, CostModel, Estimate, OnnxRuntimeWork, Work, stage_entry
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.store.stage_times import Correction, StageKnowing, correction

UNKNOWN = 2.0
"""How many times slower than a roofline says a device that nobody measured may be, in plans that are robust."""


@dataclass(frozen=True)
class CostTable:
    """`latency_s[device][i]` seconds of primitive `i`; `sources[device]` where they come from, in words.

    With a probability of 90 % each lies between `low_s` and `high_s` (0 and infinity where nothing is known).
    `entry_s[device]` is what a stage costs besides: seconds for each run of it, and per byte of its inputs. `works` is
    what the primitives do, which is the same on every device.
    """

    latency_s: Mapping[str, tuple[float, ...]]
    sources: Mapping[str, str]
    low_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    high_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    entry_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    works: tuple[Work, ...] = ()

    def pessimistic(self) -> CostTable:
        """The same with every primitive at the upper end of its interval; twice as slow where nothing is known.

        Estimates of one device are of one model, and wrong together. If they are as correlated as they can be, a
        quantile of a sum is the sum of the quantiles (Dhaene et al., "The concept of comonotonicity in actuarial
        science and finance: theory", Insurance: Mathematics and Economics 31, 2002), so that a device's load is
        above the sum of upper ends with the probability with which each primitive is above its own: 5 %. Errors that
        are less correlated cancel in a sum, and as a rule it is then above that more rarely.
        """
        worst = {
            name: tuple(
                max(mean, high if math.isfinite(high) else mean * UNKNOWN)
                for mean, high in zip(means, self.high_s.get(name, means), strict=True)
            )
            for name, means in self.latency_s.items()
        }
        return replace(self, latency_s=worst)


def price_table(works: Sequence[Work], cluster: Cluster, model: CostModel) -> tuple[CostTable, list[str]]:
    """Every primitive on every device by the cost model, corrected by what stages took, and sentences about it."""
    devices = cluster.devices
    plain = {device.name: estimates_of(model, works, device) for device in devices}
    corrections = {device.name: correction_of(model, works, plain[device.name], device) for device in devices}
    found = {name: _corrected(works, estimates, corrections[name]) for name, estimates in plain.items()}
    table = CostTable(
        latency_s={d.name: tuple(e.latency_s * d.slowdown for e in found[d.name]) for d in devices},
        sources={name: _sources(estimates) for name, estimates in found.items()},
        low_s={d.name: tuple(e.low_s * d.slowdown for e in found[d.name]) for d in devices},
        high_s={d.name: tuple(e.high_s * d.slowdown for e in found[d.name]) for d in devices},
        entry_s={d.name: stage_entry(d) for d in devices},
        works=tuple(works),
    )
    slowed = [f"{device.name} {device.slowdown:g} times" for device in devices if device.slowdown > 1]
    notes = [f"emulated devices, slower than their targets: {', '.join(slowed)}"] if slowed else []
    guessed = [name for name, estimates in found.items() if _all_roofline(estimates)]
    if guessed:
        notes.append(f"nobody has measured the target of {', '.join(guessed)}: its costs are a roofline's")
    for name, found_here in corrections.items():
        if found_here.stages:
            before = sum(estimate.latency_s for estimate in plain[name])
            after = sum(estimate.latency_s for estimate in found[name])
            ran = "1 stage that ran" if found_here.stages == 1 else f"{found_here.stages} stages that ran"
            notes.append(f"costs on {name} are {after / before:.2f} times the estimated ones, by {ran} on its target")
    return table, notes


def estimates_of(model: CostModel, works: Sequence[Work], device: Device) -> list[Estimate]:
    """An estimate per primitive, on the device's target.

    A view costs its call, which no model needs to know, and what ONNX Runtime runs what it took here.
    """
    view = Estimate(CALL_S, "roofline", CALL_S / 2, CALL_S * 2)
    return [
        work.estimate(device)
        if isinstance(work, OnnxRuntimeWork)
        else view
        if work.view
        else model.estimate(work, device)
        for work in works
    ]


def correction_of(model: CostModel, works: Sequence[Work], estimates: Sequence[Estimate], device: Device) -> Correction:
    """What is known of stages on the device's target makes this of `estimates`."""
    rows = model.stage_times(device) if isinstance(model, StageKnowing) else []
    timed = ((work.key, one.latency_s) for work, one in zip(works, estimates, strict=True))
    known = {key: seconds for key, seconds in timed if key and math.isfinite(seconds)}
    return correction(rows, known, stage_entry(replace(device, slowdown=1.0)))


def _corrected(works: Sequence[Work], estimates: Sequence[Estimate], correction: Correction) -> list[Estimate]:
    factors = [correction.factors.get(work.key, 1.0) for work in works]
    return [
        replace(one, latency_s=one.latency_s * factor, low_s=one.low_s * factor, high_s=one.high_s * factor)
        for one, factor in zip(estimates, factors, strict=True)
    ]


def _all_roofline(estimates: Sequence[Estimate]) -> bool:
    return all(estimate.source == "roofline" for estimate in estimates)


def _sources(estimates: Sequence[Estimate]) -> str:
    """ "profile 12, xgboost 30 (of x86-64-v4)": how many primitives each source priced."""
    by_source = Counter((one.source, one.based_on) for one in estimates if math.isfinite(one.latency_s))
    return ", ".join(
        f"{source} {count}" + (f" (of {based_on})" if based_on else "")
        for (source, based_on), count in sorted(by_source.items())
    )
