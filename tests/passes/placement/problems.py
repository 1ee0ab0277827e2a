"""Small random placement problems: every feature of the problem type may turn up, figures are small whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tvmpipe.passes.placement.problem import Contention, Matrix, Model, Problem, Shared, Tensor

MODELS: tuple[Model, ...] = ("overlapped", "summed", "makespan")
CONTENTIONS: tuple[Contention, ...] = ("pair", "port")


def _whole(draw: Any, shape: tuple[int, ...], low: int, high: int) -> Matrix:
    size = int(np.prod(shape))
    return np.array(draw(st.lists(st.integers(low, high), min_size=size, max_size=size)), float).reshape(shape)


def _chosen(draw: Any, among: range) -> tuple[int, ...]:
    mask = draw(st.integers(0, 2 ** len(among) - 1))
    return tuple(one for place, one in enumerate(among) if mask >> place & 1)


def _tensors(draw: Any, nodes: int, devices: int, head: bool) -> tuple[Tensor, ...]:
    producers: list[int | None] = [*range(nodes), *([None] * draw(st.integers(0, 2)) if head else [])]
    producers += [draw(st.integers(0, nodes - 1))] if draw(st.booleans()) else []  # a node with two outputs
    made = []
    for producer in producers:
        consumers = _chosen(draw, range(0 if producer is None else producer + 1, nodes))
        to_head = head and producer is not None and draw(st.integers(0, 3)) == 0
        if not consumers and not to_head:
            continue
        given = _whole(draw, (devices + 1, devices + 1), 0, 6) if draw(st.integers(0, 2)) == 0 else None
        made.append(Tensor(producer, consumers, float(draw(st.integers(0, 8))), to_head, given))
    return tuple(made)


def _groups(draw: Any, nodes: int) -> tuple[tuple[int, ...], ...]:
    if nodes < 2 or draw(st.integers(0, 3)):
        return ()
    shuffled = draw(st.permutations(range(nodes)))
    first = draw(st.integers(2, min(3, nodes)))
    rest = shuffled[first : first + 2]
    return (tuple(shuffled[:first]), *([tuple(rest)] if len(rest) == 2 and draw(st.booleans()) else []))


def _shared(draw: Any, nodes: int) -> tuple[Shared, ...]:
    """Weights that some nodes have in common, in half of all problems; a node may share several."""
    chosen = [_chosen(draw, range(nodes)) for _ in range(draw(st.integers(1, 3)) if draw(st.booleans()) else 0)]
    return tuple(Shared(readers, float(draw(st.integers(1, 4)))) for readers in chosen if len(readers) > 1)


def _mostly_large(most: int) -> st.SearchStrategy[int]:
    """From 1 up, and more often near `most`: a problem with one device or one node tells little."""
    return st.sampled_from([size for size in range(1, most + 1) for _ in range(size)])


@st.composite
def problems(
    draw: Any,
    *,
    models: tuple[Model, ...] = MODELS,
    contentions: tuple[Contention, ...] = CONTENTIONS,
    max_nodes: int = 8,
    max_devices: int = 3,
    contiguous: bool | None = None,
    head: bool = True,
    sharing: bool = True,
) -> Problem:
    """A problem with up to so many nodes and devices, with or without a placement that fits.

    Pins are nodes that only one device may run. What the problem type gives no meaning, such as the diagonals of
    links, has numbers that show when somebody reads them. `head`: whether tensors may come from and go to it;
    `sharing`: whether nodes may share weights.
    """
    nodes = draw(_mostly_large(max_nodes))
    devices = draw(_mostly_large(max_devices))
    model = draw(st.sampled_from(models))
    time_s = _whole(draw, (nodes, devices), 0, 9)
    for node in _chosen(draw, range(nodes)) if draw(st.integers(0, 3)) == 0 else ():
        allowed = _chosen(draw, range(devices))
        time_s[node, [device for device in range(devices) if device not in allowed]] = np.inf if allowed else 3.0
    weight_bytes, working_bytes = _whole(draw, (nodes,), 0, 4), _whole(draw, (nodes,), 0, 3)
    shared = _shared(draw, nodes) if sharing else ()
    for one in shared:
        weight_bytes[list(one.nodes)] += one.size_bytes
    once = weight_bytes.sum() - sum(one.size_bytes * (len(one.nodes) - 1) for one in shared)
    enough = int(once + working_bytes.max())
    memory_bytes = np.array(
        [draw(st.sampled_from([np.inf, enough, 3 * enough // 4, enough // 2])) for _ in "x" * devices]
    )
    ends = devices + 1
    taken = model != "makespan" and draw(st.integers(0, 2)) == 0
    return Problem(
        names=tuple(f"n{node}" for node in range(nodes)),
        devices=tuple(f"d{device}" for device in range(devices)),
        time_s=time_s,
        weight_bytes=weight_bytes,
        working_bytes=working_bytes,
        memory_bytes=memory_bytes,
        tensors=_tensors(draw, nodes, devices, head),
        bandwidth_bps=2.0 ** _whole(draw, (ends, ends), 0, 2),
        latency_s=_whole(draw, (ends, ends), 0, 2),
        model=model,
        contention=draw(st.sampled_from(contentions)),
        free=np.array([model == "summed" and draw(st.integers(0, 3)) == 0 for _ in range(devices)]),
        groups=_groups(draw, nodes),
        taking=_whole(draw, (devices,), 0, 2) / 4 if taken else np.zeros(0),
        contiguous=draw(st.booleans()) if contiguous is None else contiguous,
        shared=shared,
    )
