"""Which devices are lost, and whether those that came back have stayed long enough to be relied on."""

from __future__ import annotations

from tvmpipe.runtime.head.instructions import Probe
from tvmpipe.runtime.transport import deadlines


class Losses:
    """A part of the state machine, as pure as that.

    Attributes: `lost` the devices that are looked for, in the order in which they were lost.
    """

    def __init__(self) -> None:
        self.lost: dict[str, None] = {}
        self._counts: dict[str, tuple[float, int]] = {}  # when a device was last lost, and how often in a row
        self._back: dict[str, float] = {}  # since when it is there again

    @property
    def probe(self) -> Probe:
        """What to look for."""
        return Probe(tuple(sorted(self.lost)))

    def lose(self, device: str, now_s: float) -> None:
        """A device is lost."""
        self.lost[device] = None
        self._count(device, now_s)
        self._back.pop(device, None)

    def fail(self, device: str, now_s: float) -> None:
        """A device failed at something new: it does what it is needed for now, and more is asked of it later."""
        self._count(device, now_s)
        self._back[device] = now_s

    def come(self, device: str, now_s: float) -> bool:
        """A device is there, again or for the first time. Returns whether it was lost."""
        self._back[device] = now_s
        return device in self.lost and self.lost.pop(device) is None

    def leave(self, device: str) -> bool:
        """Nobody cares about a device any more. Returns whether it was lost."""
        self._back.pop(device, None)
        return device in self.lost and self.lost.pop(device) is None

    def rely(self) -> None:
        """Those that are there are used."""
        self._back.clear()

    def stayed(self, now_s: float) -> bool:
        """Whether all that came have been there for a while: for longer after they were lost again and again."""
        return all(now_s - since > self._probation_s(device) for device, since in self._back.items())

    def _count(self, device: str, now_s: float) -> None:
        last_s, losses = self._counts.get(device, (now_s, 0))
        self._counts[device] = now_s, losses + 1 if now_s - last_s < deadlines.FORGIVEN_S else 1

    def _probation_s(self, device: str) -> float:
        losses = self._counts[device][1] if device in self._counts else 1
        return float(min(deadlines.RETURN_S * 2 ** (losses - 1), deadlines.LONGEST_RETURN_S))
