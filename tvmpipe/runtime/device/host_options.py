"""What an agent tells its stage hosts, which its RPC server needs to know as well."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmpipe.runtime.emulation.options import Emulation
from tvmpipe.runtime.emulation.speed_probe import ReferenceLoop

if TYPE_CHECKING:
    from tvmpipe.runtime.transport.sockets import Sockets


@dataclass(frozen=True)
class HostOptions:
    """What an agent tells its host when it starts it. No pydantic: its RPC server would need it for nothing else."""

    address: str
    port: int
    store: Path
    memory_bytes: int
    cluster_key: Path | None
    emulation: Emulation
    store_limit_bytes: int | None = None
    user_limits: bool = False

    def link_sockets(self) -> Sockets:
        """Sockets for measuring links and for files, without heartbeats. Raises InputError."""
        from tvmpipe.runtime.security.keys import ClusterKey
        from tvmpipe.runtime.transport.sockets import Sockets

        key = None if self.cluster_key is None else ClusterKey.load(self.cluster_key)
        return Sockets(key, heartbeat_s=None)

    def facts(self) -> dict[str, Any]:
        """For JSON; `from_facts` takes them back."""
        key, loop = self.cluster_key, self.emulation.like
        emulation = {**asdict(self.emulation), "like": None if loop is None else _loop_facts(loop)}
        return {
            **asdict(self),
            "store": str(self.store),
            "cluster_key": None if key is None else str(key),
            "emulation": emulation,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> HostOptions:
        """What `facts` are of."""
        key, emulation = facts["cluster_key"], facts["emulation"]
        loop = None if emulation["like"] is None else _loop_of(emulation["like"])
        return cls(
            **{
                **facts,
                "store": Path(facts["store"]),
                "cluster_key": None if key is None else Path(key),
                "emulation": Emulation(**{**emulation, "like": loop}),
            }
        )


def _loop_facts(loop: ReferenceLoop) -> dict[str, Any]:
    return {**asdict(loop), "library": str(loop.library)}


def _loop_of(facts: dict[str, Any]) -> ReferenceLoop:
    return ReferenceLoop(
        **{**facts, "library": Path(facts["library"]), "shapes": tuple(tuple(shape) for shape in facts["shapes"])}
    )
