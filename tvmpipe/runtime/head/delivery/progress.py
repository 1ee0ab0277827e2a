"""How far a device has got with its files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceProgress:
    """How far a device has got: bytes that it wants, has received, and of these from other devices; and how fast."""

    device: str
    wanted_bytes: int
    received_bytes: int
    from_devices_bytes: int
    seconds: float

    @property
    def rate_bps(self) -> float:
        """Bytes per second since the transfer began."""
        return self.received_bytes / self.seconds if self.seconds else 0.0

    @property
    def left_s(self) -> float | None:
        """About how long the rest takes; None while nothing has come."""
        left = self.wanted_bytes - self.received_bytes
        return left / self.rate_bps if self.received_bytes else None
