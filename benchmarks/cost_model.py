"""How right learned costs are for models that were never seen: leave one model out, and errors over measurements.

    python -m benchmarks.cost_model --store FOLDER [--measure [--passes 4] [--budget 720] [--again]] [--curve]

With `--measure`, agents are started on this machine and every primitive of the suite and of the experiments is timed
for each target first, into FOLDER, until two measurements agree, as often as there are passes, or for BUDGET seconds a
target; with `--again` what is there already does not count for that. Then each model in turn is left out:
costs are learned from the other models' primitives and the experiments, less those that the model has as well, and
price the model's. The roofline and a linear model are judged by the same folds. Writes `results/cost_model_NAME.txt`,
named after FOLDER, and with `--curve` (needs matplotlib) `results/cost_model_NAME.svg`: errors for the suite by what
was learned from experiments, and how much cheaper these are than all primitives of the suite. What comes with tvmpipe
is in `tvmpipe/targets/store/profiles/amd` and `intel`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning_curve import curve
from benchmarks.priced import Priced
from benchmarks.suite import TARGETS, measured, suite_works, workloads_to_measure
from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.profiling.profiler import profile
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.targets.cost.features import as_row, features
from tvmpipe.targets.cost.learned import fit
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore, counting
from tvmpipe.targets.store.reference_loops import undisturbed

_COLUMNS = ("primitive", "model", "Spearman", "in 90 %")
RESULTS = Path(__file__).parent / "results"


Method = Callable[[Sequence[Measurement], Sequence[Work], TargetDescription], NDArray[np.float64]]
"""(what may be learned from, what to price, target) -> low, middle and high seconds, an array of three rows."""


def by_roofline(_: Sequence[Measurement], works: Sequence[Work], target: TargetDescription) -> NDArray[np.float64]:
    """The roofline knows no interval."""
    device = Device("d", "d", target, 1, None)
    found = [Roofline().estimate(work, device) for work in works]
    return np.array([[one.low_s for one in found], [one.latency_s for one in found], [one.high_s for one in found]])


def by_line(rows: Sequence[Measurement], works: Sequence[Work], target: TargetDescription) -> NDArray[np.float64]:
    """Ridge regression of log seconds on the same features; 90 % intervals from its residuals."""
    table, wanted = _table([row.work for row in rows], target), np.log2([row.network_s for row in rows])
    middle, spread = table.mean(0), table.std(0) + 1e-9
    scaled, mean = (table - middle) / spread, wanted.mean()
    weights = np.linalg.solve(scaled.T @ scaled + np.eye(table.shape[1]), scaled.T @ (wanted - mean))
    low, high = np.quantile(wanted - mean - scaled @ weights, [0.05, 0.95])
    said = (_table(works, target) - middle) / spread @ weights + mean
    return 2.0 ** np.array([said + low, said, said + high])


def by_tvmpipe(rows: Sequence[Measurement], works: Sequence[Work], target: TargetDescription) -> NDArray[np.float64]:
    """What tvmpipe plans with."""
    model = fit(undisturbed(rows), target, 1)
    found = [model.predict(work) for work in works]
    return np.array([[one.low_s for one in found], [one.seconds for one in found], [one.high_s for one in found]])


METHODS: dict[str, Method] = {"roofline": by_roofline, "linear": by_line, "tvmpipe": by_tvmpipe}


def _table(works: Sequence[Work], target: TargetDescription) -> NDArray[np.float64]:
    return np.array([as_row(features(work, target, 1)) for work in works])


def measure(store: ProfileStore, **how: Any) -> None:
    """Time everything on this machine, one target after the other, since agents would disturb each other."""
    workloads = workloads_to_measure()
    for name in TARGETS:
        device = Device("d", "d", find_target(name), 1, None)
        with (
            tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder,
            local_cluster([LocalAgent("d")], store=Path(folder)) as local,
        ):
            cluster = Cluster((device,), {})
            print(name, profile(workloads, cluster, local.tracker, store, compile_function, **how), flush=True)


def leave_one_out(
    rows: Sequence[Measurement], suite: Mapping[str, Mapping[Work, int]], target: TargetDescription, method: Method
) -> list[Priced]:
    """Price each model by what is known from the others and the experiments."""
    seconds = {row.work.key: row.network_s for row in rows}
    priced = []
    for name, calls in suite.items():
        works = [work for work in calls if work.key in seconds]
        own = {work.key for work in works}
        low, said, high = method([row for row in rows if row.work.key not in own], works, target)
        measured = np.array([seconds[work.key] for work in works])
        priced.append(Priced(name, said, low, high, measured, np.array([float(calls[work]) for work in works])))
    return priced


def lines_of(target: str, method: str, priced: Sequence[Priced]) -> list[str]:
    """A row for all models together, and for tvmpipe one for each."""
    errors = np.concatenate([one.errors for one in priced])
    covered = np.concatenate([one.covered for one in priced])
    wholes = [abs(one.whole) for one in priced]
    ranks = [one.spearman for one in priced]
    coverage = "-" if method == "roofline" else f"{covered.mean():.1%}"
    lines = [
        f"{target:<10} {method:<9} {'all':<20}{len(errors):>6}{np.median(errors):>10.1%}{np.median(wholes):>10.1%}"
        f"{np.median(ranks):>10.3f}{coverage:>10}"
    ]
    if method == "tvmpipe":
        lines += [
            f"{'':<20} {one.model:<20}{len(one.errors):>6}{np.median(one.errors):>10.1%}{one.whole:>+10.1%}"
            f"{one.spearman:>10.3f}{one.covered.mean():>10.1%}"
            for one in priced
        ]
    return lines


def name_of(store: ProfileStore) -> str:
    """What the results of a store are called, without a suffix."""
    return f"cost_model_{store.folder.resolve().name}"


def processor_of(store: ProfileStore) -> str:
    """What was measured, as the store says."""
    facts = store.device(find_target(measured(store)[0]), 1)
    return "a processor" if facts is None else facts.processor


def main() -> None:
    """Measure if asked to, judge, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--curve", action="store_true")
    arguments = parser.parse_args()
    store = ProfileStore(arguments.store)
    if arguments.measure:
        measure(store, passes=arguments.passes, budget_s=arguments.budget, again=arguments.again)
    if not measured(store):
        parser.error(f"{arguments.store} has no measurements of {', '.join(TARGETS)}; make some with --measure")
    suite = suite_works()
    lines = [
        f"{processor_of(store)}, 1 thread; {date.today().isoformat()}; each model left out in turn, medians",
        "",
        f"{'target':<10} {'method':<9} {'model':<20}{'count':>6}" + "".join(f"{name:>10}" for name in _COLUMNS),
    ]
    for name in measured(store):
        target = find_target(name)
        rows = list(counting(store.read(target, 1)).values())
        busy = len(rows) - len(undisturbed(rows))
        lines.append(f"{name}: {len(rows)} primitives measured, {busy} of them while the machine was busy")
        for method, price in METHODS.items():
            lines += lines_of(name, method, leave_one_out(rows, suite, target, price))
            print("\n".join(lines[-(1 if method != "tvmpipe" else 1 + len(suite)) :]), flush=True)
    if arguments.curve:
        lines += ["", *curve(store, suite, RESULTS / f"{name_of(store)}.svg")]
    (RESULTS / f"{name_of(store)}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
