"""Keep the measurements of code that a change of the schedule rules left as it was.

    git worktree add ../before REVISION
    (cd ../before && python -m benchmarks.restamp --digests /tmp/before.json)
    python -m benchmarks.restamp --since /tmp/before.json

Measurements count for the version of the rules that made their code (`SCHEDULE_VERSION`): a digest of the scheduled
code of some primitives of every kernel. The first command writes a digest of the scheduled code of every primitive of
the suite and the experiments, for each target that something is shipped of; the second does the same here, writes the
version of now into `targets/store/schedule_version.py`, stamps shipped measurements of code that is the same with it,
and drops the others, which must be measured again. Two to three minutes each.
"""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path

import click
import tvm

from benchmarks.suite import TARGETS, measured, workloads_to_measure
from tvmpipe.commands.progress import count_progress
from tvmpipe.passes.kernels.schedule import schedule_module
from tvmpipe.passes.workloads import PrimitiveWorkload, distinct, workloads_of
from tvmpipe.profiling.experiments import KINDS, experiments
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.store import profile_store, schedule_version
from tvmpipe.targets.store.profile_store import ProfileStore, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION

SHIPPED = Path(profile_store.__file__).parent / "profiles"
_VERSION_FILE = Path(schedule_version.__file__)
_PROBED = (*((name, 1) for name in (*TARGETS, "pi5")), ("x86-64-v3", 4))
Digests = dict[str, dict[str, str]]
"""Of scheduled code on one thread, by target and key of the primitive."""


def schedules_now() -> str:
    """The version of the rules as they are: of the code that they make of one experiment of each kind.

    For one thread of each x86 level and of a Cortex-A76, and for four threads of a desktop.
    """
    workloads: list[PrimitiveWorkload] = []
    for one in islice(experiments(), len(KINDS)):
        workloads += workloads_of(one.model, one.name)
    digest = hashlib.sha256()
    for workload in distinct(workloads):
        for name, threads in _PROBED:
            digest.update(_scheduled(workload, name, threads).encode())
    return digest.hexdigest()[:12]


def _scheduled(workload: PrimitiveWorkload, target: str, threads: int) -> str:
    """The TVMScript of a primitive's scheduled function."""
    module = schedule_module(tvm.IRModule({"main": workload.function}), find_target(target), threads)
    return str(module["main"].script())


def digests() -> Digests:
    """What the rules make now."""
    workloads = workloads_to_measure()
    found: Digests = {name: {} for name in TARGETS}
    for workload in count_progress(workloads, "scheduling", len(workloads)):
        for name in TARGETS:
            found[name][workload.work.key] = hashlib.sha256(_scheduled(workload, name, 1).encode()).hexdigest()
    return found


def stamped(text: str, same: set[str], old: str, new: str) -> tuple[str, int, int]:
    """JSON lines with the version `new` for the primitives in `same` that were measured with `old`; how many those are.

    Measurements of other code are left out; the last number says how many they were.
    """
    lines, kept, dropped = [], 0, 0
    for line in text.splitlines(keepends=True):
        row = json.loads(line)
        if "work" in row:
            if row["schedule"] != old or row["work"]["key"] not in same:
                dropped += 1
                continue
            line = line.replace(f'"schedule":"{old}"', f'"schedule":"{new}"')
            kept += 1
        lines.append(line)
    return "".join(lines), kept, dropped


@click.command()
@click.option("--digests", "write", type=click.Path(path_type=Path), help="Write them to this file.")
@click.option("--since", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Such a file.")
def main(write: Path | None, since: Path | None) -> None:
    """Write digests of scheduled code, or stamp measurements of code that is the same as in a file of them."""
    if (write is None) == (since is None):
        raise click.UsageError("give --digests or --since")
    now = digests()
    if write is not None:
        facts = {"schedule": SCHEDULE_VERSION, "tvm": tvm_version(), "digests": now}
        write.write_text(json.dumps(facts), encoding="utf-8")
        return
    assert since is not None
    before = json.loads(since.read_text(encoding="utf-8"))
    if before["tvm"] != tvm_version():
        raise click.ClickException(f"{since} is of TVM {before['tvm']}, this is {tvm_version()}: measure all again")
    version = schedules_now()
    text = _VERSION_FILE.read_text(encoding="utf-8")
    _VERSION_FILE.write_text(text.replace(f'"{SCHEDULE_VERSION}"', f'"{version}"'), encoding="utf-8")
    for folder in sorted(one for one in SHIPPED.iterdir() if one.is_dir()):
        for name in measured(ProfileStore(folder)):
            path = ProfileStore(folder).path(find_target(name), 1)
            known = before["digests"][name]
            same = {key for key, digest in now[name].items() if known.get(key) == digest}
            text, kept, dropped = stamped(path.read_text(encoding="utf-8"), same, before["schedule"], version)
            partial = path.with_suffix(".part")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
            click.echo(f"{folder.name} {name}: {kept} measurements of the same code, {dropped} of other code dropped")


if __name__ == "__main__":
    main()
