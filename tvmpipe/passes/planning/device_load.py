"""What a plan asks of one device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceLoad:
    """What a device holds, and per sample seconds of compute, bytes it receives and sends.

    Where devices take turns, these are means over all samples. `activation_bytes` is a count of what is alive at a time
    (stages.py) until the stages are compiled, and then what TVM allocates (memory.py). `state_bytes` are of all
    sequences that the device is to have at once.
    """

    compute_s: float
    receive_bytes: int
    send_bytes: int
    weight_bytes: int
    activation_bytes: int
    memory_bytes: int | None
    state_bytes: int = 0

    @property
    def busy_s(self) -> float:
        """Seconds per sample; transfers overlap with compute and count on their links."""
        return self.compute_s

    @property
    def held_bytes(self) -> int:
        """Weights, states and activations."""
        return self.weight_bytes + self.state_bytes + self.activation_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes by which the device's memory is exceeded, 0 when it fits."""
        return 0 if self.memory_bytes is None else max(0, self.held_bytes - self.memory_bytes)
