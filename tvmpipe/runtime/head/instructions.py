"""What the executor can be told to do. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvmpipe.runtime.head.replanner import Speeds
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


@dataclass(frozen=True)
class Replan:
    """Find a plan for these devices, as fast as they are measured to be.

    An `urgent` one is made at once, of those of them that answer, as nothing runs; of others it is proposed.
    """

    number: int
    present: tuple[str, ...]
    urgent: bool
    speeds: Speeds = field(default_factory=Speeds)


@dataclass(frozen=True)
class Compile:
    """Make the plan that was proposed under this number."""

    number: int


@dataclass(frozen=True)
class GiveBack:
    """Nothing is planned for this device any more: it is for others."""

    device: str


@dataclass(frozen=True)
class Refused:
    """A device that was to leave stays, and why."""

    device: str
    message: str


@dataclass(frozen=True)
class Widen:
    """The plan that runs next takes so many samples at once."""

    samples: int


@dataclass(frozen=True)
class Tell:
    """A sentence for people: what was decided, and why."""

    sentence: str


Instruction = (
    Open
    | Prepare
    | Activate
    | Feed
    | Answer
    | Fail
    | Forget
    | Join
    | Freed
    | Probe
    | Replan
    | Compile
    | GiveBack
    | Refused
    | Widen
    | Tell
)
