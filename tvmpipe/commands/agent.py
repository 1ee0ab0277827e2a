"""`tvmpipe agent`, and the options with which one behaves as a device of a cluster file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmpipe.commands.reference_loop import request_reference_loop
from tvmpipe.errors import InputError
from tvmpipe.files import TemporaryFolder
from tvmpipe.runtime.device.agent import AgentOptions, serve
from tvmpipe.runtime.emulation.options import Emulation

if TYPE_CHECKING:
    from tvmpipe.targets.description.cluster import Device


def serve_agent(
    *,
    slowdown: float,
    like: str | None,
    cluster: Path | None,
    profiles: Path | None,
    bandwidth_bps: float | None,
    latency_s: float,
    **options: Any,
) -> None:
    """Serve until interrupted, with the other `options` of `AgentOptions`.

    Raises InputError as `serve` does, and when this machine cannot say how it compares with `like`.
    """
    if like is not None and slowdown == 1:
        raise InputError("--like says what --slowdown is relative to; give both")
    with TemporaryFolder("tvmpipe-agent-") as folder:
        loop = None if like is None else request_reference_loop(like, profiles, Path(folder), cluster)
        serve(AgentOptions(emulation=Emulation(slowdown, bandwidth_bps, latency_s, loop), **options))


def emulating(device: Device, profiles: Path | None = None, cluster: Path | None = None) -> tuple[str, ...]:
    """Options of an agent on this machine that is as slow as a device is said to be, relative to what is known of it.

    Where nothing is, the device is so much slower than this machine. `cluster` is the file that describes its target,
    where that is a user's own board.
    """
    from tvmpipe.passes.planning.default_cost import default_cost

    options = ["--slowdown", str(device.slowdown)]
    if device.slowdown > 1 and default_cost(profiles).usual_tiles_s(device.target) is not None:
        options += ["--like", device.target.name]
        options += [] if cluster is None or not device.target.board else ["--cluster", str(cluster)]
        options += [] if profiles is None else ["--profiles", str(profiles)]
    return tuple(options)
