"""What a head asks for a plan that its bundle has not: for the devices that are there, as fast as they turned out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tvmpipe.manifest import DeviceEntry, FileEntry, Files, Manifest, PlanEntry
from tvmpipe.runtime.head.agent_facts import AgentFacts


@dataclass(frozen=True)
class Speeds:
    """What devices and links take, over what was planned for them: 2 is twice as slow.

    `links` are by both ends, in order of their names.
    """

    devices: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def link(self, first: str, second: str) -> float:
        """Of the link between two ends."""
        return self.links.get((min(first, second), max(first, second)), 1.0)


@dataclass(frozen=True)
class Request:
    """A plan that is wanted: of the `present` devices, by name, found in `time_limit_s`.

    `speeds` are as measured.
    """

    present: tuple[str, ...]
    speeds: Speeds
    time_limit_s: float


@dataclass(frozen=True)
class Proposal:
    """A plan that was found and is not compiled. What compiling it takes is estimated from what that took before.

    `weights` are for each device the paths of the bundle's files that it needs.
    """

    number: int
    period_s: float
    latency_s: float
    compile_s: float
    weights: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Extension:
    """A plan that was made, its devices, and files that the bundle has not."""

    plan: PlanEntry
    devices: tuple[DeviceEntry, ...]
    files: Files


class Replanner(Protocol):
    """Makes plans. `describe` and `close` are for any thread, the others for one at a time and may take long."""

    def describe(self, name: str, key: str, table: Mapping[str, Any], facts: AgentFacts | None = None) -> DeviceEntry:
        """A device from now on may be `present`; `table` says what it is, as in a cluster file.

        What that leaves out is as the bundle's cluster file has it, or as its agent told. Raises ClusterError where it
        cannot be used.
        """
        ...

    def knows(self, name: str) -> bool:
        """Whether the bundle's cluster file has a device of this name, or it was described."""
        ...

    def propose(self, request: Request) -> Proposal:
        """The best plan. Raises TvmpipeError with a sentence where there is none."""
        ...

    def make(self, proposal: Proposal) -> Extension:
        """Compile a plan. Raises TvmpipeError."""
        ...

    def close(self) -> None:
        """End; what is under way raises DeviceError."""
        ...


class MoreFiles:
    """The files of a bundle, and those that came with plans."""

    def __init__(self, bundle: Files) -> None:
        self._bundle = bundle
        self._more: dict[FileEntry, Files] = {}

    def add(self, extension: Extension, manifest: Manifest) -> None:
        """Take in the files of a plan; `manifest` lists those of the bundle."""
        known = frozenset(manifest.files)
        for stage in extension.plan.stages:
            for entry in (stage.library, *stage.weight_files):
                if entry not in known:
                    self._more[entry] = extension.files

    def path_of(self, entry: FileEntry) -> Path:
        """Where a file lies."""
        return self._more.get(entry, self._bundle).path_of(entry)


def extended(manifest: Manifest, extension: Extension) -> Manifest:
    """The manifest with a plan that was made, and the devices that it brought."""
    known = {device.name for device in manifest.devices}
    new = tuple(device for device in extension.devices if device.name not in known)
    return manifest.model_copy(
        update={"devices": (*manifest.devices, *new), "plans": (*manifest.plans, extension.plan)}
    )


def with_device(manifest: Manifest, device: DeviceEntry) -> Manifest:
    """The manifest with another device, that no plan has yet."""
    if any(one.name == device.name for one in manifest.devices):
        return manifest
    return manifest.model_copy(update={"devices": (*manifest.devices, device)})
