"""How the executor behaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvmpipe.manifest import PlanEntry
from tvmpipe.runtime.transport import deadlines


@dataclass(frozen=True)
class Settings:
    """How the executor behaves.

    Attributes: `batch` samples that travel together; `max_batches` under way at once; `failover` whether to go on
    without a lost device; `timeout_s` the longest that one stage may take for a batch, and that a batch may take for
    each stage it has to pass; `recover_s` the longest that nothing may run after a loss, while lost devices are waited
    for and plans are made and opened; `elastic` whether plans are made that the bundle has not, and a change to one is
    to pay within `horizon_s`; `widens` whether a plan may have more batches under way, where it needs them.
    """

    batch: int = 1
    max_batches: int = 4
    failover: bool = False
    timeout_s: float = deadlines.STAGE_S
    recover_s: float = deadlines.RECOVER_S
    elastic: bool = False
    horizon_s: float = deadlines.HORIZON_S
    widens: bool = False

    def batches_of(self, plan: PlanEntry) -> int:
        """Batches under way at once in a plan."""
        with_devices = max(1, plan.inflight - plan.on_links)  # these have batches; links delay large ones no longer
        samples = with_devices * self.batch + plan.on_links
        return max(self.max_batches, math.ceil(samples / self.batch)) if self.widens else self.max_batches
