"""Consecutive parts of the running order on different devices: plans of few stages, found exactly and at once.

The dynamic program over sets of devices of Hu et al., "PipeEdge" (DSD 2022), with sums instead of maxima for
latency. A model with branches may have better plans, which the mixed-integer program looks for; it gets this one's
figure as the one to beat.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.base import Objective
from tvmpipe.passes.coarsen import CoarseGraph
from tvmpipe.targets.cluster import HEAD, Cluster, Device

_MOST_DEVICES = 11  # the work doubles with each

Matrix = NDArray[np.float64]


def best_segments(
    coarse: CoarseGraph, cluster: Cluster, objective: Objective, pinned: Mapping[int, str]
) -> dict[int, str] | None:
    """Coarse node -> device, each device with one run of nodes; None when nothing fits.

    Of a large cluster, only the devices that would take the model through fastest are considered, and those with
    pins.
    """
    devices = _fastest(coarse, cluster, pinned)
    join = np.maximum if objective == "throughput" else np.add
    work = [_work(coarse, device, pinned) for device in devices]
    cut = _cut_bytes(coarse)
    count = len(coarse.nodes)
    # best[used, last][j]: the figure of the first j nodes on the devices in `used`, the last of them on `last`;
    # came_from the same: (device before, first node of the last run).
    best: dict[tuple[int, int], Matrix] = {}
    came_from: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for d, device in enumerate(devices):
        into = cluster.link(HEAD, device.name).transfer_s(int(cut[0]))
        best[1 << d, d] = join(into, work[d][0])
    # Sets in the order of their sizes: a plan on few devices is extended by one more.
    for used in sorted(range(1, 1 << len(devices)), key=lambda one: (one.bit_count(), one)):
        for last, device in enumerate(devices):
            if not used >> last & 1 or used.bit_count() == 1:
                continue
            before = [d for d in range(len(devices)) if used >> d & 1 and d != last]
            tried = []
            for d in before:
                link = cluster.link(devices[d].name, device.name)
                # Row i, column j: the run from node i up to j.
                arrives = join(best[used & ~(1 << last), d], cut / link.bandwidth_bps + link.latency_s)
                tried.append(join(arrives[:, None], work[last]))
            stacked = np.stack(tried)
            flat = stacked.reshape(-1, count + 1)
            choice = flat.argmin(axis=0)
            best[used, last] = flat.min(axis=0)
            came_from[used, last] = np.array(before)[choice // (count + 1)], choice % (count + 1)
    used, last = min(
        best,
        key=lambda key: join(best[key][count], cluster.link(devices[key[1]].name, HEAD).transfer_s(int(cut[count]))),
    )
    if not np.isfinite(best[used, last][count]):
        return None
    device_of: dict[int, str] = {}
    end = count
    while True:
        start = int(came_from[used, last][1][end]) if used.bit_count() > 1 else 0
        device_of.update((node.index, devices[last].name) for node in coarse.nodes[start:end])
        if used.bit_count() == 1:
            return device_of
        used, last, end = used & ~(1 << last), int(came_from[used, last][0][end]), start


def _work(coarse: CoarseGraph, device: Device, pinned: Mapping[int, str]) -> Matrix:
    """Seconds of the nodes from i up to j on a device; infinite where they do not fit, must not, or are none."""
    count = len(coarse.nodes)
    seconds = np.full((count + 1, count + 1), np.inf)
    room = np.inf if device.memory_bytes is None else float(device.memory_bytes)
    for i in range(count):
        total, weights, working = 0.0, 0, 0
        for j in range(i, count):
            node = coarse.nodes[j]
            total += node.latency_s[device.name]
            weights += node.weight_bytes
            working = max(working, node.working_bytes)
            if weights + working > room or pinned.get(node.index, device.name) != device.name:
                break
            seconds[i, j + 1] = total
    return seconds


def _cut_bytes(coarse: CoarseGraph) -> Matrix:
    """Bytes that cross before each node; first what the head sends, at the end what it gets."""
    sizes = np.zeros(len(coarse.nodes) + 1)
    for edge in coarse.edges:
        if edge.producer is None:
            sizes[0] += edge.size_bytes
            continue
        sizes[edge.producer + 1 : max(edge.consumers, default=edge.producer) + 1] += edge.size_bytes
        if edge.to_head:
            sizes[-1] += edge.size_bytes
    return sizes


def _fastest(coarse: CoarseGraph, cluster: Cluster, pinned: Mapping[int, str]) -> list[Device]:
    held = set(pinned.values())
    speed = {
        device.name: (device.name not in held, sum(node.latency_s[device.name] for node in coarse.nodes))
        for device in cluster.devices
    }
    chosen = sorted(speed, key=lambda name: speed[name])[:_MOST_DEVICES]
    return [device for device in cluster.devices if device.name in chosen]
