"""What whole stages took when they ran (`tvmpipe run --learn`), and how that corrects the costs of their primitives.

A stage is known by the primitives that it calls and how often, whatever model they come from, and by what it is given.
Its time, less what entering it costs, over the sum that was estimated for its primitives is an error which they share:
all of them are corrected by it, so that the same stage costs what it took, and one that has some of its primitives
follows. Of a primitive in several stages, each counts for the share of its time that the primitive has.

A run may have been disturbed without anybody noticing. So the fastest of a stage's undisturbed runs counts, and an
estimate moves by at most a factor of two for each that there is, up to eight.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.store.median_interval import median_interval

FORMAT = 2
"""Of a line in a profile; readers that know only primitives pass over it without a word."""

FEWEST = 5
"""Samples from which a stage has a time worth keeping."""

_SPREAD = 0.25  # of the middle 80 % of the samples over their median, from which a device was busy
_STEP, _MOST = 2.0, 8.0  # a factor for each run, and for however many


@dataclass(frozen=True)
class StageTime:
    """Seconds of one run of a stage.

    Attributes: `calls` key of a primitive -> how often the stage calls it; `input_bytes` of what it is given;
    `seconds` the median of `runs` samples with
    its 95 % interval, as on a device that emulates none: what an emulated one took divided by its `slowdown`; `busy`
    whether the samples spread as on a device with other work; `schedule` and `tvm` the versions of what made the code;
    `when` in UTC; `origin` the model.
    """

    calls: Mapping[str, int]
    input_bytes: int
    seconds: float
    low_s: float
    high_s: float
    runs: int
    busy: bool
    slowdown: float
    schedule: str
    tvm: str
    when: str
    origin: str

    @property
    def key(self) -> str:
        """The same for the same calls of code that the same versions made."""
        return stage_key(self.calls, self.input_bytes, self.schedule, self.tvm)


@runtime_checkable
class StageKnowing(Protocol):
    """A cost model that also knows what stages took."""

    def stage_times(self, device: Device) -> list[StageTime]:
        """Those on the target of a device, made by the code that would be made now."""
        ...


def stage_key(calls: Mapping[str, int], input_bytes: int, schedule: str, tvm: str) -> str:
    """One string for a stage compiled by certain versions."""
    text = ",".join((*(f"{key}*{count}" for key, count in sorted(calls.items())), str(input_bytes)))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{schedule}.{tvm}"


def stage_time(
    samples: Sequence[float],
    calls: Mapping[str, int],
    input_bytes: int,
    *,
    slowdown: float,
    schedule: str,
    tvm: str,
    when: str,
    origin: str,
) -> StageTime | None:
    """What so many samples (seconds each) say of a stage; None where they are fewer than `FEWEST`."""
    if len(samples) < FEWEST:
        return None
    undone = sorted(seconds / slowdown for seconds in samples)
    low, high = median_interval(undone)
    median, tenth = statistics.median(undone), len(undone) // 10
    busy = undone[-1 - tenth] - undone[tenth] > _SPREAD * median
    return StageTime(
        dict(calls), input_bytes, median, low, high, len(undone), busy, slowdown, schedule, tvm, when, origin
    )


@dataclass(frozen=True)
class Correction:
    """What `stages` make of estimates: factors by key of a primitive, all others are as they were."""

    factors: Mapping[str, float]
    stages: int = 0


def correction(
    rows: Iterable[StageTime], estimated_s: Mapping[str, float], entry_s: tuple[float, float] = (0.0, 0.0)
) -> Correction:
    """How what stages took corrects `estimated_s` (key of a primitive -> seconds of one call).

    `entry_s` is what a stage costs besides, in seconds for each run of it and per byte of its inputs. Only stages of
    which every primitive is in `estimated_s` count.
    """
    usable = [row for row in rows if not row.busy and all(key in estimated_s for key in row.calls)]
    runs = Counter(row.key for row in usable)
    counting = fastest(usable)
    moved: dict[str, float] = {}
    weight: dict[str, float] = {}
    for row in counting.values():
        total = sum(count * estimated_s[key] for key, count in row.calls.items())
        most = min(_STEP ** runs[row.key], _MOST)
        took = row.seconds - entry_s[0] - entry_s[1] * row.input_bytes
        error = math.log(min(max(took / total, 1 / most), most))
        for key, count in row.calls.items():
            share = count * estimated_s[key] / total
            moved[key] = moved.get(key, 0.0) + share * error
            weight[key] = weight.get(key, 0.0) + share
    return Correction({key: math.exp(moved[key] / weight[key]) for key in moved}, len(counting))


def fastest(rows: Iterable[StageTime]) -> dict[str, StageTime]:
    """The fastest undisturbed row for each `StageTime.key` that has one."""
    found: dict[str, StageTime] = {}
    for row in rows:
        known = found.get(row.key)
        if not row.busy and (known is None or row.seconds < known.seconds):
            found[row.key] = row
    return found


def to_json(row: StageTime) -> dict[str, Any]:
    """A line of a profile."""
    values = {name: float(f"{v:.4g}") if isinstance(v, float) else v for name, v in asdict(row).items()}
    return {"v": FORMAT, "stage": values}


def from_json(values: dict[str, Any]) -> StageTime:
    """From such a line without its version. Raises ValueError, TypeError or KeyError when it is none."""
    row = StageTime(**values["stage"])
    if not (row.seconds > 0 and row.calls and all(count > 0 for count in row.calls.values())):
        raise ValueError("no time of a stage")
    return row
