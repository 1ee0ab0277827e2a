"""A plan on its devices, what keeps one from getting there, and who puts it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tvmpipe.errors import TvmpipeError
from tvmpipe.manifest import DeviceEntry, Manifest, PlanEntry
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.replanner import Extension


def any_device(key: str) -> DeviceEntry:
    """What stands for a device of which only the key is known."""
    return DeviceEntry(name=key, key=key, target="", triple="", cpu="", identity="", threads=1, memory_bytes=None)


class OpenError(Exception):
    """A device that could not be opened, and why."""

    def __init__(self, device: str, cause: TvmpipeError) -> None:
        super().__init__(str(cause))
        self.device = device
        self.cause = cause


class NoRoomError(OpenError):
    """A device that cannot host a plan beside the running one."""


@dataclass(frozen=True)
class Opened:
    """A plan on its devices: the session that its messages carry, and each stage link as HOST:PORT."""

    plan: PlanEntry
    session: str
    links: Mapping[str, str]


@dataclass(frozen=True)
class HeadEnd:
    """Where devices reach the head, and what they are told of it.

    Attributes: `link_port` where it takes results, `status_port` where it hears how devices are; `max_batches` how
    many batches it has under way at most; `heard` whether it has heard of a device, by session and name.
    """

    link_port: int
    status_port: int
    max_batches: int
    heard: Callable[[str, str], bool]


class PlanDeployer(Protocol):
    """Puts plans on devices; `Deployer` does so over TVM RPC."""

    @property
    def sessions(self) -> frozenset[str]:
        """Those of plans that are open, being opened, or prepared: their devices are to be answered."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Bytes of libraries and weights sent to devices so far."""
        ...

    @property
    def agents(self) -> Mapping[str, AgentFacts]:
        """What each agent said of itself, by the device's name."""
        ...

    def open(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        """Have every stage of `plan` hosted, in place of what was hosted before. Raises OpenError."""
        ...

    def prepare(self, plan: PlanEntry, head: HeadEnd) -> Opened:
        """Have every stage of `plan` hosted beside those of the plan that runs. Raises NoRoomError and OpenError."""
        ...

    def activate(self, opened: Opened) -> None:
        """A prepared plan is the one that runs now. Raises OpenError."""
        ...

    def discard(self, opened: Opened) -> None:
        """A prepared plan is not wanted. Raises OpenError."""
        ...

    def back(self, device: str) -> bool:
        """Whether a lost device can be had again."""
        ...

    def extend(self, manifest: Manifest) -> None:
        """There are devices and plans more than there were."""
        ...

    def add_files(self, extension: Extension) -> None:
        """Where the files of a plan that was made lie."""
        ...

    def registered(self) -> Mapping[str, int]:
        """How many devices there are of each key, in use or not. Raises TvmpipeError."""
        ...

    def look(self, key: str) -> AgentFacts | None:
        """What a device with this key says of itself, that this head has for no other. Raises TvmpipeError."""
        ...

    def give_back(self, device: str) -> None:
        """Make a device free for others, if it answers."""
        ...

    def close(self) -> None:
        """Give every device back."""
        ...
