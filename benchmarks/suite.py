"""The networks that costs are learned of and judged by, their primitives, and the experiments measured beside them."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

from benchmarks.kernels import model_file
from tvmpipe.passes import driver
from tvmpipe.passes.graph.primitive_features import works_of
from tvmpipe.passes.workloads import PrimitiveWorkload, distinct, workloads_of
from tvmpipe.profiling.experiments import EXPERIMENTS, experiments
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.store.profile_store import ProfileStore

SUITE = (
    *("vit_base", "bert_base", "resnet18", "resnet50", "mobilenet_v2"),
    *("light_densenet121", "light_inception_v2", "light_squeezenet", "light_vgg19"),
)
TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


def measured(store: ProfileStore) -> list[str]:
    """Those of `TARGETS` that a store has measurements of."""
    return [name for name in TARGETS if store.read(find_target(name), 1)]


def suite_works() -> dict[str, dict[Work, int]]:
    """Distinct compiled primitives of each model and how often one inference calls them."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as models:
        for name in SUITE:
            state = driver.front(model_file(name, Path(models)))
            calls: dict[Work, int] = {}
            for primitive, work in zip(state.graph.primitives, works_of(state.graph, state.module), strict=True):
                if work.key and not work.view and not primitive.constant:
                    calls[work] = calls.get(work, 0) + 1
            found[name] = calls
    return found


def workloads_to_measure() -> list[PrimitiveWorkload]:
    """Distinct primitives of the suite and of the experiments."""
    workloads: list[PrimitiveWorkload] = []
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
        for name in SUITE:
            workloads += workloads_of(model_file(name, Path(folder)), name)
    for one in islice(experiments(), EXPERIMENTS):
        workloads += workloads_of(one.model, one.name)
    return distinct(workloads)
