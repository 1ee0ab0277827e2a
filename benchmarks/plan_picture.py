"""Draw the steady state of a plan: which device works on which sample when.

    python -m benchmarks.plan_picture BUNDLE -o plan.svg      (needs matplotlib)

Bars are the plan's predicted times: a device receives a tensor through the head, computes, and sends.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SAMPLES = 6


def schedule(report: dict[str, Any]) -> list[tuple[str, str, int, float, float]]:
    """(device, stage, sample, start, length) of every stage of the first samples, in seconds."""
    transfer = {device["name"]: device["transfer_s"] for device in report["devices"]}
    stages_on = {name: sum(s["device"] == name for s in report["stages"]) for name in transfer}
    free = dict.fromkeys(transfer, 0.0)
    bars = []
    for sample in range(SAMPLES):
        ready = 0.0
        for stage in report["stages"]:
            device = stage["device"]
            length = stage["compute_s"] + transfer[device] / stages_on[device]
            start = max(ready, free[device])
            ready = free[device] = start + length
            bars.append((device, stage["name"], sample, start, length))
    return bars


def main() -> None:
    """Read the report of a bundle and write the picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tvmpipe"
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("plan.svg"))
    arguments = parser.parse_args()
    report = json.loads((arguments.bundle / "report.json").read_text(encoding="utf-8"))
    devices = [device["name"] for device in report["devices"] if device["compute_s"] > 0]
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.6 * len(devices)))
    colours = pyplot.get_cmap("viridis")
    for device, stage, sample, start, length in schedule(report):
        row = devices.index(device)
        colour = colours(0.15 + 0.8 * sample / SAMPLES)
        axes.barh(row, length * 1e3, left=start * 1e3, height=0.7, color=colour, edgecolor="white")
        ink = "white" if sample < SAMPLES / 2 else "black"
        axes.text(
            (start + length / 2) * 1e3, row, f"{stage} #{sample}", ha="center", va="center", fontsize=7, color=ink
        )
    axes.set_yticks(range(len(devices)), devices)
    axes.invert_yaxis()
    axes.set_xlabel("ms (predicted)")
    axes.set_title(f"{report['model']}: a result every {report['period_s'] * 1e3:.0f} ms once the pipeline is full")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
