"""What can happen to the executor, and what it can be told to do. Plain data: a log of it is JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Failure:
    """Why a sample is not answered: device, stage and sample as far as they are known, and a sentence."""

    device: str | None
    stage: str | None
    sample: int | None
    message: str

    def of(self, sample: int) -> Failure:
        """The same about another sample."""
        return replace(self, sample=sample)


@dataclass(frozen=True)
class Submitted:
    """A sample is there, its tensors kept under its number."""

    sample: int
    now_s: float


@dataclass(frozen=True)
class Arrived:
    """Values of a batch came in from a device."""

    epoch: int
    batch: int
    values: tuple[int, ...]
    now_s: float


@dataclass(frozen=True)
class Seen:
    """A device said how it is; `busy` is stage, batch and seconds it has taken so far."""

    epoch: int
    device: str
    busy: tuple[str, int, float] | None
    now_s: float


@dataclass(frozen=True)
class Opened:
    """All devices of the plan are ready."""

    epoch: int
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


Event = Submitted | Arrived | Seen | Opened | DeviceLost | Returned | Tick | Closed


@dataclass(frozen=True)
class Open:
    """Open a plan of the bundle on its devices, as opening number `epoch`."""

    epoch: int
    plan: int


@dataclass(frozen=True)
class Feed:
    """Send the inputs of these samples, as one batch, to the devices that read them and whose turn the batch is."""

    epoch: int
    batch: int
    samples: tuple[int, ...]


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
class Probe:
    """Look whether these devices, and no others, come back."""

    devices: tuple[str, ...]


Instruction = Open | Feed | Answer | Fail | Probe

_EVENTS = {kind.__name__: kind for kind in (Submitted, Arrived, Seen, Opened, DeviceLost, Returned, Tick, Closed)}


def to_line(event: Event) -> str:
    """An event as a line of a log."""
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def from_line(line: str) -> Event:
    """An event from a line of a log. Raises ValueError, KeyError or TypeError when it is none."""
    fields: dict[str, Any] = json.loads(line)
    kind = _EVENTS[fields.pop("event")]
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    event: Event = kind(**fields)
    return event
