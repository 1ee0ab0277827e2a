"""How right learned costs are for models that were never seen: leave one model out, and errors over measurements.

    python -m benchmarks.cost_model --store FOLDER [--measure [--passes 4] [--budget 720] [--again]] [--curve]

With `--measure`, agents are started on this machine and every primitive of the suite and of the experiments is timed
for each target first, into FOLDER, until two measurements agree, as often as there are passes, or for BUDGET seconds a
target; with `--again` what is there already does not count for that. Then each model in turn is left out:
costs are learned from the other models' primitives and the experiments, less those that the model has as well, and
price the model's. The roofline and a linear model are judged by the same folds. Writes `results/cost_model_NAME.txt`,
named after FOLDER, and with `--curve` (needs matplotlib) `results/cost_model_NAME.svg`: errors for the suite by what
was learned from experiments, and how much cheaper these are than all primitives of the suite. What comes with tvmpipe
is in `tvmpipe/targets/profiles/amd` and `intel`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernels import model_file
from tvmpipe.build import prepare
from tvmpipe.passes.pipeline import FRONT, run_passes
from tvmpipe.passes.profile import profile
from tvmpipe.passes.subjects import Subject, distinct, subjects_of
from tvmpipe.passes.work import works_of
from tvmpipe.runtime.local import LocalAgent, local_cluster
from tvmpipe.targets.cluster import Cluster, Device
from tvmpipe.targets.cost import Roofline, Work
from tvmpipe.targets.design import most_telling_first
from tvmpipe.targets.experiments import experiments
from tvmpipe.targets.features import as_row, features
from tvmpipe.targets.learned import TargetModel, fit
from tvmpipe.targets.measure import MIN_REPEAT_S
from tvmpipe.targets.profile_store import Measurement, ProfileStore, counting
from tvmpipe.targets.target import TargetDescription, find_target
from tvmpipe.targets.timing import Patience
from tvmpipe.targets.watch import undisturbed

SUITE = (
    *("vit_base", "bert_base", "resnet18", "resnet50", "mobilenet_v2"),
    *("light_densenet121", "light_inception_v2", "light_squeezenet", "light_vgg19"),
)
TARGETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
EXPERIMENTS = 50
SIZES = (40, 150)
NEAREST = {"x86-64-v2": "x86-64-v3", "x86-64-v3": "x86-64-v2", "x86-64-v4": "x86-64-v3"}
_COLUMNS = ("primitive", "model", "Spearman", "in 90 %")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Priced:
    """What a method said of a model's distinct primitives, in seconds, with an interval; what was measured."""

    model: str
    said: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    measured: NDArray[np.float64]
    calls: NDArray[np.float64]

    @property
    def errors(self) -> NDArray[np.float64]:
        """Relative error of each primitive."""
        return np.abs(self.said / self.measured - 1)

    @property
    def whole(self) -> float:
        """Relative error of the sum over all calls."""
        return float(self.said @ self.calls / (self.measured @ self.calls) - 1)

    @property
    def spearman(self) -> float:
        """Rank correlation of said and measured."""
        said, measured = (np.argsort(np.argsort(values)) for values in (self.said, self.measured))
        return float(np.corrcoef(said, measured)[0, 1])

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Which measurements lie in their intervals."""
        return (self.low <= self.measured) & (self.measured <= self.high)


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


def suite_works() -> dict[str, dict[Work, int]]:
    """Distinct compiled primitives of each model and how often one inference calls them."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as models:
        for name in SUITE:
            state = run_passes(prepare(model_file(name, Path(models)), Cluster((), {})), FRONT)
            assert state.graph is not None
            calls: dict[Work, int] = {}
            for primitive, work in zip(state.graph.primitives, works_of(state.graph, state.module), strict=True):
                if work.key and not work.view and not primitive.constant:
                    calls[work] = calls.get(work, 0) + 1
            found[name] = calls
    return found


def measure(store: ProfileStore, **how: Any) -> None:
    """Time everything on this machine, one target after the other, since agents would disturb each other."""
    subjects: list[Subject] = []
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
        for name in SUITE:
            subjects += subjects_of(model_file(name, Path(folder)), name)
    for one in islice(experiments(), EXPERIMENTS):
        subjects += subjects_of(one.model, one.name)
    subjects = distinct(subjects)
    for name in TARGETS:
        device = Device("d", "d", find_target(name), 1, None)
        with (
            tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder,
            local_cluster([LocalAgent("d")], store=Path(folder)) as local,
        ):
            print(name, profile(subjects, Cluster((device,), {}), local.tracker, store, **how), flush=True)


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


def timing_s(row: Measurement) -> float:
    """Seconds that a measurement kept its device: samples of `MIN_REPEAT_S` at least, one to warm up, and cold ones.

    Compiling and sending it, and asking whether the device is busy, come on top: about as long for every primitive.
    """
    return (1 + row.runs) * max(row.seconds, MIN_REPEAT_S) + 2 * Patience().cold * (row.cold_s or 0.0)


def errors_after(
    drawn: Sequence[Measurement],
    seconds: Mapping[str, float],
    suite: Mapping[str, Mapping[Work, int]],
    name: str,
    near: Mapping[str, TargetModel] | None = None,
) -> tuple[float, float]:
    """Median error of the suite's primitives and of its models, learned from these measurements alone.

    With `near`, learning starts from another target's model, for each of the suite's one that never saw it.
    """
    target = find_target(name)
    alone = None if near else fit(drawn, target, 1)
    priced = []
    for one, calls in suite.items():
        model = alone or fit(drawn, target, 1, None if near is None else near[one])
        works = [work for work in calls if work.key in seconds]
        said = np.array([model.predict(work).seconds for work in works])
        measured = np.array([seconds[work.key] for work in works])
        priced.append(Priced(one, said, said, said, measured, np.array([float(calls[work]) for work in works])))
    primitives = np.concatenate([one.errors for one in priced])
    return float(np.median(primitives)), float(np.median([abs(one.whole) for one in priced]))


def models_without(
    rows: Sequence[Measurement], suite: Mapping[str, Mapping[Work, int]], name: str
) -> dict[str, TargetModel]:
    """What is learned of a target when all is measured but the primitives of one model, for each of them."""
    found = {}
    for one, calls in suite.items():
        own = {work.key for work in calls}
        found[one] = fit([row for row in undisturbed(rows) if row.work.key not in own], find_target(name), 1)
    return found


def curve(store: ProfileStore, suite: Mapping[str, Mapping[Work, int]], path: Path) -> list[str]:
    """Draw errors for the suite over how many primitives of the experiments were measured; the figures as lines.

    They are measured in the order of `targets.design`; what a neighbour disturbed is passed over, since the profiler
    measures it again.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tvmpipe"
    from matplotlib import pyplot

    columns = ("measured", "fewer", "timing", "shorter", "primitive", "model")
    lines = [
        f"{'target':<10} {'starts from':<12}" + "".join(f"{column:>11}" for column in columns),
        "learned from experiments only, none of the suite's primitives measured on the target;",
        "the known target that it starts from was measured in full, less the primitives of the model that is priced",
    ]
    said = []
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), sharex=True)
    origins = {one.name for one in islice(experiments(), EXPERIMENTS)}
    known = {name: list(counting(store.read(find_target(name), 1)).values()) for name in TARGETS}
    without = {name: models_without(known[name], suite, name) for name in sorted(set(NEAREST.values()))}
    for number, name in enumerate(TARGETS):
        rows = {row.work.key: row for row in known[name]}
        whole = [rows[key] for key in {work.key for calls in suite.values() for work in calls} & set(rows)]
        whole_s = sum(map(timing_s, whole))
        drawn = [row for row in undisturbed(known[name]) if row.origin in origins]
        drawn.sort(key=lambda row: row.work.key)
        drawn = [drawn[place] for place in most_telling_first([row.work for row in drawn], find_target(name), 1)]
        seconds = {key: row.network_s for key, row in rows.items()}
        fifth = len(whole) // 5
        sizes = sorted({size for size in (*SIZES, fifth) if size <= len(drawn)})
        for start in ("", NEAREST[name]):
            near = without[start] if start else None
            errors = [errors_after(drawn[:size], seconds, suite, name, near) for size in sizes]
            for size, (primitive, model) in zip(sizes, errors, strict=True):
                taken_s = sum(map(timing_s, drawn[:size]))
                lines.append(
                    f"{name:<10} {start or 'nothing':<12}{size:>11}{len(whole) / size:>10.1f}x{taken_s:>9.1f} s"
                    f"{whole_s / taken_s:>10.1f}x{primitive:>11.1%}{model:>11.1%}"
                )
                print(lines[-1], flush=True)
                if size == fifth:
                    said.append(
                        f"{name} from {start or 'nothing'}: {size} measurements of experiments, {taken_s:.0f} s of "
                        f"timing, against {len(whole)} of the suite's primitives, {whole_s:.0f} s: "
                        f"{len(whole) / size:.1f} times fewer, {whole_s / taken_s:.1f} times shorter; "
                        f"median errors {primitive:.1%} of a primitive, {model:.1%} of a model"
                    )
            style = {"color": f"C{number}", "linestyle": "-" if start else "--", "marker": "o"}
            label = f"{name}, from {start}" if start else name
            left.plot(sizes, [100 * primitive for primitive, _ in errors], label=label, **style)
            right.plot(sizes, [100 * model for _, model in errors], label=label, **style)
    for axes, title in ((left, "a primitive"), (right, "a whole model")):
        axes.axvline(fifth, color="grey", linestyle=":", label="a fifth of the suite's primitives")
        axes.set_title(f"Median error of {title} in %")
        axes.set_xlabel("primitives measured, none of the models'")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    left.legend(fontsize="x-small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    return [*lines, "", *said]


def name_of(store: ProfileStore) -> str:
    """What the results of a store are called, without a suffix."""
    return f"cost_model_{store.folder.resolve().name}"


def processor_of(store: ProfileStore) -> str:
    """What was measured, as the store says."""
    facts = store.device(find_target(TARGETS[0]), 1)
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
    suite = suite_works()
    lines = [
        f"{processor_of(store)}, 1 thread; {date.today().isoformat()}; each model left out in turn, medians",
        "",
        f"{'target':<10} {'method':<9} {'model':<20}{'count':>6}" + "".join(f"{name:>10}" for name in _COLUMNS),
    ]
    for name in TARGETS:
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
