"""A quick profile of this machine: how it compares, now, with the one that the shipped measurements were made on."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from tvmpipe.commands.progress import stderr
from tvmpipe.passes.profile import profile
from tvmpipe.passes.subjects import distinct, subjects_of
from tvmpipe.runtime.local import LocalAgent, local_cluster
from tvmpipe.targets.cluster import Cluster, Device
from tvmpipe.targets.design import farthest_first
from tvmpipe.targets.experiments import experiments
from tvmpipe.targets.profile_store import ProfileStore
from tvmpipe.targets.target import TargetDescription

_EXPERIMENTS = 20
_PRIMITIVES = 40


def calibrate(targets: Collection[TargetDescription], folder: Path) -> ProfileStore:
    """Some primitives of the experiments, measured for each target on one thread, one target after the other."""
    store = ProfileStore(folder)
    parts = islice(experiments(), _EXPERIMENTS)
    subjects = distinct([subject for part in parts for subject in subjects_of(part.model, part.name)])
    for target in sorted(targets, key=lambda one: one.cpu):
        order = farthest_first([subject.work for subject in subjects], target, 1)[:_PRIMITIVES]
        device = Device(target.cpu, target.cpu, target, 1, None)
        with (
            tempfile.TemporaryDirectory(prefix="tvmpipe-") as agents,
            local_cluster([LocalAgent(device.key, 1)], store=Path(agents)) as local,
        ):
            found = profile([subjects[place] for place in order], Cluster((device,), {}), local.tracker, store)
        stderr.print(f"{target.cpu}: {found.measured} primitives measured, {found.busy} of them disturbed")
    return store
