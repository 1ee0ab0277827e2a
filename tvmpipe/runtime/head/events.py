"""What can happen to the executor. Plain data: a log of it is JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, get_args

from tvmpipe.manifest import PlanEntry
from tvmpipe.runtime.head.replanner import Speeds


@dataclass(frozen=True)
class Submitted:
    """A sample is there, its tensors kept under its number; `bucket` is that of its extents.

    `sequence` is the number of the sequence that it is the next step of; states that grow have `start` elements before
    it, and `elements` more after it.
    """

    sample: int
    now_s: float
    bucket: int = 0
    sequence: int | None = None
    start: int = 0
    elements: int = 0


@dataclass(frozen=True)
class Began:
    """A sequence begins; its states lie in this slot of each device, which nothing else uses until it is `Freed`."""

    sequence: int
    slot: int
    now_s: float


@dataclass(frozen=True)
class Cut:
    """A sequence goes on from before these of its steps: what they have left counts for none that comes from now on."""

    sequence: int
    samples: tuple[int, ...]
    now_s: float


@dataclass(frozen=True)
class Ended:
    """No more steps of a sequence come."""

    sequence: int
    now_s: float


@dataclass(frozen=True)
class Arrived:
    """Values of a batch came in from a device.

    `faults`: place in the batch, device, stage and message of each sample that could not be computed.
    """

    epoch: int
    batch: int
    values: tuple[int, ...]
    now_s: float
    faults: tuple[tuple[int, str, str, str], ...] = ()


@dataclass(frozen=True)
class Seen:
    """A device said how it is.

    `busy` is stage, batch and seconds it has taken so far; `computed` how many samples each of its stages has done
    since the plan was opened.
    """

    epoch: int
    device: str
    busy: tuple[str, int, float] | None
    now_s: float
    computed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """All devices of the plan are ready."""

    epoch: int
    now_s: float


@dataclass(frozen=True)
class Prepared:
    """All devices of a plan are ready, beside the one that runs."""

    epoch: int
    now_s: float


@dataclass(frozen=True)
class Unprepared:
    """A plan could not be made ready beside the one that runs.

    `device` is the one that it failed on; without `room` nothing is wrong with it, but it cannot host two at a time.
    """

    epoch: int
    device: str
    message: str
    room: bool
    now_s: float


@dataclass(frozen=True)
class DeviceLost:
    """A device could not be opened, failed, or lost a link; `stage` and `batch` where they are known."""

    epoch: int
    device: str
    message: str
    now_s: float
    stage: str | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Returned:
    """A lost device answers again."""

    device: str
    now_s: float


@dataclass(frozen=True)
class Missing:
    """A device that a plan was to be made with does not answer, whatever runs."""

    device: str
    message: str
    now_s: float


@dataclass(frozen=True)
class Joined:
    """A device may be planned with."""

    device: str
    now_s: float


@dataclass(frozen=True)
class Leaving:
    """A device is to be given back, as soon as nothing needs it."""

    device: str
    now_s: float


@dataclass(frozen=True)
class Measured:
    """What devices and links take now, over what was planned for them: by name, and by both ends."""

    devices: tuple[tuple[str, float], ...]
    links: tuple[tuple[str, str, float], ...]
    now_s: float

    def sentence(self) -> str:
        """What has been measured, for people."""
        moved = [f"{name} takes {factor:.2f} times" for name, factor in self.devices]
        moved += [
            f"the link between {first} and {second} takes {factor:.2f} times" for first, second, factor in self.links
        ]
        return f"what was planned for is no more: {', '.join(moved)} as long" if moved else "all is as planned again"

    @property
    def speeds(self) -> Speeds:
        """The same to look up."""
        return Speeds(dict(self.devices), {(first, second): factor for first, second, factor in self.links})


@dataclass(frozen=True)
class Proposed:
    """A plan that was asked for under this number could be ready in `ready_s`; its figures are predicted."""

    number: int
    period_s: float
    latency_s: float
    ready_s: float
    now_s: float


@dataclass(frozen=True)
class PlanReady:
    """A plan was made."""

    number: int
    plan: PlanEntry
    now_s: float


@dataclass(frozen=True)
class PlanFailed:
    """There is no such plan, or it could not be made; `message` says why."""

    number: int
    message: str
    now_s: float


@dataclass(frozen=True)
class Tick:
    """Time has passed."""

    now_s: float


@dataclass(frozen=True)
class Closed:
    """The user has closed the pipeline."""

    now_s: float


Event = (
    Submitted
    | Began
    | Cut
    | Ended
    | Arrived
    | Seen
    | Opened
    | Prepared
    | Unprepared
    | DeviceLost
    | Returned
    | Missing
    | Joined
    | Leaving
    | Measured
    | Proposed
    | PlanReady
    | PlanFailed
    | Tick
    | Closed
)


_EVENTS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def to_line(event: Event) -> str:
    """An event as a line of a log."""
    fields = {one.name: getattr(event, one.name) for one in dataclass_fields(event)}
    if isinstance(event, PlanReady):
        fields["plan"] = event.plan.model_dump(mode="json")
    return json.dumps({"event": type(event).__name__, **fields})


def from_line(line: str) -> Event:
    """An event from a line of a log. Raises ValueError, KeyError or TypeError when it is none."""
    told: dict[str, Any] = json.loads(line)
    kind = _EVENTS[told.pop("event")]
    if kind is PlanReady:
        told["plan"] = PlanEntry.model_validate(told["plan"])
    return kind(**{name: _tuples(value) for name, value in told.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
