"""The period of a placement in the two models of throughput."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tvmpipe.passes.placement.problem import Loads, Problem, Vector


def crossings(problem: Problem, device_of: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(tensor, sender, receiver) of everything that moves; each tensor reaches each device once."""
    for number, tensor in enumerate(problem.tensors):
        sender = problem.head if tensor.producer is None else device_of[tensor.producer]
        receivers = {device_of[reader] for reader in tensor.consumers}
        if tensor.to_head:
            receivers.add(problem.head)
        for receiver in sorted(receivers - {sender}):
            yield number, sender, receiver


def loads(problem: Problem, device_of: Sequence[int]) -> Loads:
    """Seconds per sample on every device and link, and the period that these make.

    "overlapped": a link, or with `contention` "port" a port, takes its bytes. A device's compute includes taking in
    what it receives.
    "summed": transfers count on both ends, the sender paying once for each receiver; the head's ends are free.
    Latencies keep nobody busy.
    """
    placed = np.asarray(device_of)
    compute = np.zeros(problem.device_count)
    np.add.at(compute, placed, problem.time_s[np.arange(problem.node_count), placed])
    links: dict[tuple[int, int], float] = defaultdict(float)
    for number, sender, receiver in crossings(problem, device_of):
        tensor = problem.tensors[number]
        if receiver != problem.head:
            compute[receiver] += problem.taking_s(tensor, receiver)
        links[sender, receiver] += problem.payload_s(tensor, sender, receiver)
    device = compute.copy()
    if problem.model == "summed":
        for (sender, receiver), seconds in links.items():
            for end in (sender, receiver):
                if end != problem.head and not problem.is_free(end):
                    device[end] += seconds
    return Loads(compute, device, dict(links), period_of(problem, device, links))


def period_of(problem: Problem, device_s: Vector, links: Mapping[tuple[int, int], float]) -> float:
    """The largest of what the model counts for devices ([D] seconds) and of links or ports."""
    busiest = 0.0
    if problem.model != "summed" and problem.contention == "pair":
        busiest = max(links.values(), default=0.0)
    elif problem.model != "summed":
        sends, receives = np.zeros(problem.device_count + 1), np.zeros(problem.device_count + 1)
        for (sender, receiver), seconds in links.items():
            sends[sender] += seconds
            receives[receiver] += seconds
        busiest = float(max(sends.max(), receives.max()))
    return max(float(device_s.max(initial=0.0)), busiest)
