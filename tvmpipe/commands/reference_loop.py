"""A loop by which an emulated device knows how fast this machine is beside the one that it shall be slower than.

To make one takes TVM's compiler. An agent has its runtime alone, so that it has another process do it:
`python -m tvmpipe.commands.reference_loop ARGUMENTS`, which are a JSON list of those of `make_reference_loop`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tvmpipe.errors import InputError, TvmpipeError
from tvmpipe.process import describe_exit
from tvmpipe.runtime.emulation.speed_probe import ReferenceLoop


def make_reference_loop(name: str, profiles: Path | None, folder: Path, cluster: Path | None = None) -> ReferenceLoop:
    """A loop, written to `folder`, that says how fast this machine is beside the one that measurements are of.

    Those of the target called `name`, or of the nearest one; it may be a board that the file `cluster` describes.
    Raises ClusterError when there is no such target, InputError when nobody has measured one like it or this machine
    has other instructions.
    """
    from tvmpipe.passes.backend.codegen.llvm import compile_function
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
    library = folder / "reference_loop.so"
    library.write_bytes(compile_function(loop.function, target, 1))
    return ReferenceLoop(target.name, library, tuple(array.shape for array in loop.arrays), usual_s)


def request_reference_loop(
    name: str, profiles: Path | None, folder: Path, cluster: Path | None = None
) -> ReferenceLoop:
    """What `make_reference_loop` returns, made by another process. Raises InputError with what that raises."""
    arguments = [name, *(None if path is None else str(path) for path in (profiles, folder.absolute(), cluster))]
    from pydantic import TypeAdapter, ValidationError

    command = [sys.executable, "-m", "tvmpipe.commands.reference_loop", json.dumps(arguments)]
    made = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    try:
        answer = json.loads(made.stdout)
        if "error" in answer:
            raise InputError(answer["error"])
        return TypeAdapter(ReferenceLoop).validate_python(answer)
    except (json.JSONDecodeError, ValidationError):
        ended = describe_exit(made.returncode)
        raise InputError(f"the loop that --like {name} needs could not be compiled ({ended})") from None


def main(name: str, profiles: str | None, folder: str, cluster: str | None) -> None:
    """Print the loop, or the `error` that it cannot be made for, as JSON."""
    from tvmpipe.commands.stdout import reserve_stdout

    reserve_stdout()
    profiles_path, cluster_path = (None if path is None else Path(path) for path in (profiles, cluster))
    try:
        loop = make_reference_loop(name, profiles_path, Path(folder), cluster_path)
    except TvmpipeError as error:
        print(json.dumps({"error": str(error)}), flush=True)
    else:
        print(json.dumps({**asdict(loop), "library": str(loop.library)}), flush=True)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
