"""What an agent behaves as that emulates another device: it computes for real, and then it waits."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tvmpipe.runtime.emulation.speed_probe import ReferenceLoop, SpeedProbe

if TYPE_CHECKING:
    from tvmpipe.runtime.device.stage_host import Stages
    from tvmpipe.runtime.transport.sender import Sender


@dataclass(frozen=True)
class Emulation:
    """What to behave as: computing `slowdown` times slower, sending at `bandwidth_bps` (None: as fast as it goes) with
    `latency_s` on each message. Slower than this machine is, or than the one that the loop `like` is known of."""

    slowdown: float = 1.0
    bandwidth_bps: float | None = None
    latency_s: float = 0.0
    like: ReferenceLoop | None = None

    @property
    def active(self) -> bool:
        """Whether anything is emulated, so that figures must be labelled."""
        return self.slowdown != 1.0 or self._slows_links

    def facts(self) -> dict[str, Any]:
        """What a head is told: numbers, and the name of the target that the device is slower than, None: this one."""
        return {**asdict(replace(self, like=None)), "like": None if self.like is None else self.like.target}

    def wrap_stages(self, stages: Stages, threads: int, stopped: threading.Event) -> Stages:
        """The same stages, which take longer; waits end when `stopped` is set. Call where they are to run."""
        if self.slowdown == 1.0:
            return stages
        from tvmpipe.runtime.emulation.slow_runner import SlowStages

        probe = None if self.like is None else SpeedProbe(self.like)
        return SlowStages(stages, self.slowdown, threads, stopped, probe)

    def wrap_sender(self, sender: Sender) -> Sender:
        """The same way out, which is slower."""
        if not self._slows_links:
            return sender
        from tvmpipe.runtime.emulation.slow_link import SlowLink

        return SlowLink(sender, self.bandwidth_bps, self.latency_s)

    @property
    def _slows_links(self) -> bool:
        return self.bandwidth_bps is not None or self.latency_s > 0
