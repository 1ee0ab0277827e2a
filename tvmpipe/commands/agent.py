"""`tvmpipe agent`, and the options with which one behaves as a device of a cluster file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvmpipe.errors import InputError
from tvmpipe.files import TemporaryFolder
from tvmpipe.runtime.device.agent import AgentOptions, serve
from tvmpipe.runtime.emulation.slow_device import Emulation
from tvmpipe.runtime.emulation.speed_probe import PaceLoop
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
        loop = None if like is None else pace_loop(like, profiles, Path(folder), cluster)
        serve(AgentOptions(emulation=Emulation(slowdown, bandwidth_bps, latency_s, loop), **options))


def pace_loop(name: str, profiles: Path | None, folder: Path, cluster: Path | None = None) -> PaceLoop:
    """A loop, written to `folder`, that says how fast this machine is beside the one that measurements are of.

    Those of the target called `name`, or of the nearest one; it may be a board that the file `cluster` describes.
    Raises ClusterError when there is no such target, InputError when nobody has measured one like it or this machine
    has other instructions.
    """
    from tvmpipe.passes.backend.lower import compile_function
    from tvmpipe.passes.planning.default_cost import default_cost
    from tvmpipe.profiling.peak import register_tiles
    from tvmpipe.targets.description.boards import find_target
    from tvmpipe.targets.description.cluster import load_cluster

    own = () if cluster is None else load_cluster(cluster).targets
    here, asked = find_target("native"), find_target(name, own)
    known = default_cost(profiles, own).usual_tiles_s(asked)
    if known is None:
        raise InputError(f"nothing was measured of a machine like {name}; leave --like out, or run `tvmpipe profile`")
    target, usual_s = known
    if not here.runs(target):
        raise InputError(f"this machine ({here.cpu}) has not the instructions of {target.name}")
    loop = register_tiles(target, 1)
    library = folder / "pace.so"
    library.write_bytes(compile_function(loop.function, target, 1))
    return PaceLoop(target.name, library, tuple(array.shape for array in loop.arrays), usual_s)


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
