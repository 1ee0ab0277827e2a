"""Devices that take samples in turn, round robin: what a placement calls them.

Where a placement says "pi-a+pi-b", pi-a computes the batches 0, 2, 4, ..., pi-b the others, and both hold everything
that is placed there. No name of a device has a "+" in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_SEPARATOR = "+"


def group_name(devices: Iterable[str]) -> str:
    """The place that these devices are together, in the order of their turns; of one device, its name."""
    return _SEPARATOR.join(devices)


def members_of(place: str) -> tuple[str, ...]:
    """The devices of a place, in the order of their turns."""
    return tuple(place.split(_SEPARATOR))


def conflict(placement: Mapping[str, str]) -> str | None:
    """What is wrong with the groups of a placement, as a sentence; None where each device is in one place, once."""
    place_of: dict[str, str] = {}
    for place in dict.fromkeys(placement.values()):
        devices = members_of(place)
        for device in devices:
            if devices.count(device) > 1:
                return f"{device} cannot take turns with itself in {show(place)}"
            other = place_of.setdefault(device, place)
            if other != place:
                return f"{device} cannot be in both {show(other)} and {show(place)}; no device is in two places"
    return None


def show(place: str) -> str:
    """A place as a plan file has it."""
    devices = members_of(place)
    return f"[{', '.join(devices)}]" if len(devices) > 1 else place


def without(placement: Mapping[str, str], lost: str) -> dict[str, str] | None:
    """The placement when a device is lost whose turns others can take; None where it has some primitive to itself."""
    rest = {name: [d for d in members_of(place) if d != lost] for name, place in placement.items()}
    return {name: group_name(devices) for name, devices in rest.items()} if all(rest.values()) else None
