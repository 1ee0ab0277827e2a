"""Devices that take samples in turn, round robin.

Where a placement says ("pi-a", "pi-b"), pi-a computes the batches 0, 2, 4, ..., pi-b the others, and both hold
everything that is placed there. A device that takes all samples is a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

Group = tuple[str, ...]
"""Devices that take samples in turn, in the order of their turns."""

Placement = Mapping[str, Group]
"""Name of a primitive -> the devices that compute it."""


def conflict(placement: Placement) -> str | None:
    """What is wrong with the groups of a placement, as a sentence; None where each device is in one group, once."""
    group_of: dict[str, Group] = {}
    for group in dict.fromkeys(placement.values()):
        for device in group:
            if group.count(device) > 1:
                return f"{device} cannot take turns with itself in {show(group)}"
            other = group_of.setdefault(device, group)
            if other != group:
                return f"{device} cannot be in both {show(other)} and {show(group)}; no device is in two places"
    return None


def show(group: Group) -> str:
    """A group as a plan file has it."""
    return f"[{', '.join(group)}]" if len(group) > 1 else group[0]


def without(placement: Placement, lost: str) -> dict[str, Group] | None:
    """The placement when a device is lost whose turns others can take; None where it has some primitive to itself."""
    rest = {name: tuple(device for device in group if device != lost) for name, group in placement.items()}
    return rest if all(rest.values()) else None
