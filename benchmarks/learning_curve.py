"""Errors of learned costs over how many primitives of the experiments were measured: what a device costs to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.priced import Priced
from benchmarks.suite import measured
from tvmpipe.profiling.d_optimal import d_optimal_order
from tvmpipe.profiling.experiments import EXPERIMENTS, experiments
from tvmpipe.profiling.measure import MIN_REPEAT_S
from tvmpipe.profiling.timing import Patience
from tvmpipe.targets.cost.learned import TargetModel, fit
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.store.profile_store import Measurement, ProfileStore, counting
from tvmpipe.targets.store.reference_loops import undisturbed

_SIZES = (40, 150)
_ALIKE = {
    "x86-64-v2": ("x86-64-v3", "x86-64-v4"),
    "x86-64-v3": ("x86-64-v2", "x86-64-v4"),
    "x86-64-v4": ("x86-64-v3", "x86-64-v2"),
}


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
        took = np.array([seconds[work.key] for work in works])
        priced.append(Priced(one, said, said, said, took, np.array([float(calls[work]) for work in works])))
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

    They are measured in the order of `profiling.d_optimal`; what a neighbour disturbed is passed over, since the
    profiler measures it again.
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
    known = {name: list(counting(store.read(find_target(name), 1)).values()) for name in measured(store)}
    nearest = {name: next(other for other in _ALIKE[name] if other in known) for name in known}
    without = {name: models_without(known[name], suite, name) for name in sorted(set(nearest.values()))}
    for number, name in enumerate(known):
        rows = {row.work.key: row for row in known[name]}
        whole = [rows[key] for key in {work.key for calls in suite.values() for work in calls} & set(rows)]
        whole_s = sum(map(timing_s, whole))
        drawn = [row for row in undisturbed(known[name]) if row.origin in origins]
        drawn.sort(key=lambda row: row.work.key)
        drawn = [drawn[place] for place in d_optimal_order([row.work for row in drawn], find_target(name), 1)]
        seconds = {key: row.network_s for key, row in rows.items()}
        fifth = len(whole) // 5
        sizes = sorted({size for size in (*_SIZES, fifth) if size <= len(drawn)})
        for start in ("", nearest[name]):
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
