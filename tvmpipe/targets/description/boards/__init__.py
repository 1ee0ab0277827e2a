"""The boards that come with tvmpipe: one file a family, in the form of a cluster file's `[[target]]` tables."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from tvmpipe.errors import ClusterError
from tvmpipe.targets.description.host import NATIVE, describe_host
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.description.target_table import TargetEntry, described_target

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

FOLDER = Path(__file__).parent


@functools.cache
def boards() -> tuple[TargetDescription, ...]:
    """All of them, a family after the other."""
    found: list[TargetDescription] = []
    for path in sorted(FOLDER.glob("*.toml")):
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["target"]:
            found.append(described_target(TargetEntry.model_validate(table), found))
    return tuple(found)


def target_names() -> list[str]:
    """Names that a cluster file may use without describing what they mean."""
    return [NATIVE, *(target.name for target in boards())]


def find_target(name: str, own: Sequence[TargetDescription] = ()) -> TargetDescription:
    """The target called `name` among a user's `own` and those of tvmpipe; "native" is the machine this runs on.

    Raises ClusterError when there is no such target.
    """
    if name == NATIVE:
        return describe_host(boards())
    for target in (*own, *boards()):
        if target.name == name:
            return target
    allowed = ", ".join((*target_names(), *(target.name for target in own)))
    raise ClusterError(f"target {name!r} is not known; allowed: {allowed}")
