"""Draw the steady state of a plan: which device and which link works on which sample when.

    python -m benchmarks.plan_picture BUNDLE -o plan.svg      (needs matplotlib)

Bars are the plan's predicted times. Receiving, computing and sending overlap; each resource takes the oldest sample
that is ready for it. What takes the period is drawn in bold.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import tvmpipe
from tvmpipe.manifest import Manifest, PlanEntry
from tvmpipe.targets.description.cluster import HEAD

SAMPLES = 6


@dataclass(frozen=True)
class Task:
    """A stage, or a message from one device to another: what it needs and makes, as (value, place)."""

    row: str
    label: str
    needs: frozenset[tuple[int, str]]
    makes: frozenset[tuple[int, str]]
    seconds: float


@dataclass(frozen=True)
class Bar:
    """A task of one sample, in seconds."""

    task: Task
    sample: int
    start: float


def tasks_of(manifest: Manifest, plan: PlanEntry, sample: int) -> list[Task]:
    """Stages and messages of a sample; several messages of a link share its predicted time by their bytes."""
    here = [stage for stage in plan.stages if stage.turn.takes(sample)]
    sizes = {t.value: t.spec.size_bytes for stage in plan.stages for t in (*stage.inputs, *stage.outputs)}
    tasks, messages = [], []
    reads = {
        device: {t.value for stage in here if stage.device == device for t in stage.inputs} for device in plan.devices
    }
    reads[HEAD] = set(manifest.model_outputs.values())
    sources = [(HEAD, set(manifest.model_inputs.values()))]
    for stage in here:
        needs = frozenset((t.value, stage.device) for t in stage.inputs)
        makes = frozenset((t.value, stage.device) for t in stage.outputs)
        tasks.append(Task(stage.device, stage.name, needs, makes, stage.predicted_compute_s))
        sources.append((stage.device, {t.value for t in stage.outputs}))
    for sender, made in sources:
        for receiver, wanted in reads.items():
            if receiver != sender and made & wanted:
                messages.append((sender, receiver, made & wanted))
    for link in plan.links:
        mine = [values for sender, receiver, values in messages if (sender, receiver) == (link.sender, link.receiver)]
        total = sum(sizes[value] for values in mine for value in values)
        for values in mine:
            tasks.append(
                Task(
                    row=f"{link.sender} → {link.receiver}",
                    label="" if link.encoding == "none" else link.encoding,
                    needs=frozenset((value, link.sender) for value in values),
                    makes=frozenset((value, link.receiver) for value in values),
                    seconds=link.predicted_s / link.share * sum(sizes[value] for value in values) / total,
                )
            )
    return tasks


def schedule(manifest: Manifest, plan: PlanEntry) -> list[Bar]:
    """The first samples, all of which are at the head from the start."""
    free: dict[str, float] = {}
    there = [{(value, HEAD): 0.0 for value in manifest.model_inputs.values()} for _ in range(SAMPLES)]
    waiting = [(sample, task) for sample in range(SAMPLES) for task in tasks_of(manifest, plan, sample)]
    bars = []
    while waiting:
        ready = [
            (max([free.get(task.row, 0.0), *(there[sample][need] for need in task.needs)]), sample, place)
            for place, (sample, task) in enumerate(waiting)
            if task.needs <= there[sample].keys()
        ]
        start, sample, place = min(ready)
        task = waiting.pop(place)[1]
        free[task.row] = start + task.seconds
        there[sample].update(dict.fromkeys(task.makes, free[task.row]))
        bars.append(Bar(task, sample, start))
    return bars


def main() -> None:
    """Read a bundle and write the picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tvmpipe"
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("plan.svg"))
    arguments = parser.parse_args()
    bundle = tvmpipe.load(arguments.bundle)
    report = json.loads((bundle.root / "report.json").read_text(encoding="utf-8"))
    bars = schedule(bundle.manifest, bundle.manifest.plan)
    rows = list(dict.fromkeys(bar.task.row for bar in bars))  # in the order in which the first sample meets them
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.4 * len(rows)))
    colours = pyplot.get_cmap("viridis")
    for bar in bars:
        row, task = rows.index(bar.task.row), bar.task
        colour = colours(0.15 + 0.8 * bar.sample / SAMPLES)
        thin = " → " in task.row
        edge = colour if thin else "white"
        height = 0.3 if thin else 0.8
        axes.barh(row, task.seconds * 1e3, left=bar.start * 1e3, height=height, color=colour, edgecolor=edge)
        if not thin:
            ink = "white" if bar.sample < SAMPLES / 2 else "black"
            middle = (bar.start + task.seconds / 2) * 1e3
            axes.text(middle, row, f"{task.label} #{bar.sample}", ha="center", va="center", fontsize=7, color=ink)
    labels = axes.set_yticks(range(len(rows)), rows) and axes.get_yticklabels()
    for label in labels:
        label.set_fontweight("bold" if label.get_text() == " → ".join(report["bottleneck"]["ends"]) else "normal")
    axes.invert_yaxis()
    axes.set_xlabel("ms (predicted)")
    axes.set_title(f"{report['model']}: a result every {report['period_s'] * 1e3:.0f} ms once the pipeline is full")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
