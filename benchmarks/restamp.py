"""Keep the measurements of code that a change of the schedule rules left as it was.

    git worktree add ../before REVISION
    (cd ../before && python -m benchmarks.restamp --digests /tmp/before.json)
    python -m benchmarks.restamp --since /tmp/before.json

Measurements count for the version of the rules that made their code (`profile_store.schedule_version`), which changes
with any line of them. The first command writes a digest of the scheduled code of every primitive of the suite and the
experiments, for each target that something is shipped of; the second does the same here and stamps shipped measurements
of code that is the same with the version of now. The others must be measured again. Two to three minutes each.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import tvm

from benchmarks.suite import TARGETS, measured, subjects_to_measure
from tvmpipe.commands.progress import count_progress
from tvmpipe.passes.schedule import schedule_module
from tvmpipe.targets import profile_store
from tvmpipe.targets.profile_store import ProfileStore, schedule_version, tvm_version
from tvmpipe.targets.target import find_target

SHIPPED = Path(profile_store.__file__).parent / "profiles"
Digests = dict[str, dict[str, str]]
"""Of scheduled code on one thread, by target and key of the primitive."""


def digests() -> Digests:
    """What the rules make now."""
    subjects = subjects_to_measure()
    found: Digests = {name: {} for name in TARGETS}
    for subject in count_progress(subjects, "scheduling", len(subjects)):
        for name in TARGETS:
            module = schedule_module(tvm.IRModule({"main": subject.function}), find_target(name), 1)
            found[name][subject.work.key] = hashlib.sha256(module["main"].script().encode()).hexdigest()
    return found


def stamped(text: str, same: set[str], old: str, new: str) -> tuple[str, int, int]:
    """JSON lines with the version `new` in place of `old` for the primitives in `same`; how many, and how many others
    with `old` there are."""
    lines, changed, left = [], 0, 0
    for line in text.splitlines(keepends=True):
        row = json.loads(line)
        if row.get("schedule") == old and "work" in row:
            if row["work"]["key"] in same:
                line = line.replace(f'"schedule":"{old}"', f'"schedule":"{new}"')
                changed += 1
            else:
                left += 1
        lines.append(line)
    return "".join(lines), changed, left


@click.command()
@click.option("--digests", "write", type=click.Path(path_type=Path), help="Write them to this file.")
@click.option("--since", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Such a file.")
def main(write: Path | None, since: Path | None) -> None:
    """Write digests of scheduled code, or stamp measurements of code that is the same as in a file of them."""
    if (write is None) == (since is None):
        raise click.UsageError("give --digests or --since")
    now = digests()
    if write is not None:
        facts = {"schedule": schedule_version(), "tvm": tvm_version(), "digests": now}
        write.write_text(json.dumps(facts), encoding="utf-8")
        return
    assert since is not None
    before = json.loads(since.read_text(encoding="utf-8"))
    if before["tvm"] != tvm_version():
        raise click.ClickException(f"{since} is of TVM {before['tvm']}, this is {tvm_version()}: measure all again")
    for folder in sorted(one for one in SHIPPED.iterdir() if one.is_dir()):
        for name in measured(ProfileStore(folder)):
            path = ProfileStore(folder).path(find_target(name), 1)
            known = before["digests"][name]
            same = {key for key, digest in now[name].items() if known.get(key) == digest}
            text, changed, left = stamped(
                path.read_text(encoding="utf-8"), same, before["schedule"], schedule_version()
            )
            partial = path.with_suffix(".part")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
            click.echo(f"{folder.name} {name}: {changed} measurements of the same code, {left} of other code")


if __name__ == "__main__":
    main()
