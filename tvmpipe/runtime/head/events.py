"""What can happen to the executor, and what it can be told to do. Plain data: a log of it is JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tvmpipe.runtime.transport.wire import Step


@dataclass(frozen=True)
class Failure:
    """Why a sample is not answered: device, stage and sample as far as they are known, and a sentence.

    The device is `lost`, or a stage raised for this sample alone.
    """

    device: str | None
    stage: str | None
    sample: int | None
    message: str
    lost: bool = True

    def of(self, sample: int) -> Failure:
        """The same about another sample."""
        return replace(self, sample=sample)


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
    | Tick
    | Closed
)


@dataclass(frozen=True)
class Open:
    """Open a plan of the bundle on its devices, as opening number `epoch`."""

    epoch: int
    plan: int


@dataclass(frozen=True)
class Prepare:
    """Make a plan ready beside the one that runs, as opening number `epoch`."""

    epoch: int
    plan: int


@dataclass(frozen=True)
class Activate:
    """Change over to the plan that was prepared as `epoch`: nothing of what ran before is under way any more."""

    epoch: int


@dataclass(frozen=True)
class Feed:
    """Send the inputs of these samples, as one batch, to the devices that read them and whose turn the batch is.

    `steps` says of each which step of its sequence it is.
    """

    epoch: int
    batch: int
    samples: tuple[int, ...]
    bucket: int = 0
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A sample is done: its results are those at `place` in the batch."""

    sample: int
    batch: int
    place: int


@dataclass(frozen=True)
class Fail:
    """A sample will not be done."""

    sample: int
    failure: Failure


@dataclass(frozen=True)
class Forget:
    """The inputs of these samples, steps of a sequence, are not fed again."""

    samples: tuple[int, ...]


@dataclass(frozen=True)
class Join:
    """The inputs of these samples, steps of a sequence with so many elements each, are fed again as one of a bucket.

    That is called as the first of them, and the others are forgotten.
    """

    samples: tuple[int, ...]
    elements: tuple[int, ...]
    bucket: int


@dataclass(frozen=True)
class Freed:
    """Of an ended sequence nothing is under way any more: its slot is for another one."""

    sequence: int


@dataclass(frozen=True)
class Probe:
    """Look whether these devices, and no others, come back."""

    devices: tuple[str, ...]


Instruction = Open | Prepare | Activate | Feed | Answer | Fail | Forget | Join | Freed | Probe

_KINDS = (Submitted, Began, Cut, Ended, Arrived, Seen, Opened, Prepared, Unprepared, DeviceLost, Returned, Tick, Closed)
_EVENTS: dict[str, type[Event]] = {kind.__name__: kind for kind in _KINDS}


def to_line(event: Event) -> str:
    """An event as a line of a log."""
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def from_line(line: str) -> Event:
    """An event from a line of a log. Raises ValueError, KeyError or TypeError when it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = _EVENTS[fields.pop("event")]
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return kind(**fields)
