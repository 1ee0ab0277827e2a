"""In which order a device takes what it can run: lines whose devices have several stages come to their period."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from tests.runtime import manifests
from tvmpipe.manifest import HEAD, Manifest
from tvmpipe.runtime.device.router import Router, Task, TaskQueue
from tvmpipe.runtime.device.spec import Opening, depths_of, host_spec

SAMPLES = 120


class Line:
    """Stages one after the other on devices and links that take so long, in virtual time."""

    def __init__(self, devices: Sequence[str], compute_s: Sequence[float], link_s: Sequence[float]) -> None:
        stages = [manifests.stage(f"s{n}", device, [n], [n + 1]) for n, device in enumerate(devices)]
        self.manifest: Manifest = manifests.manifest([manifests.plan(stages)], {"x": 0}, {"y": len(devices)})
        self.seconds = {stage.name: took for stage, took in zip(stages, compute_s, strict=True)}
        self.link_s = dict(enumerate(link_s))  # by the value that travels; the head's own takes none
        load: dict[str, float] = defaultdict(float)
        for device, took in zip(devices, compute_s, strict=True):
            load[device] += took
        links: dict[tuple[str, str], float] = defaultdict(float)
        for n, (sender, receiver) in enumerate(itertools.pairwise([*devices, HEAD]), start=1):
            links[sender, receiver] += self.link_s.get(n, 0.0)
        self.period_s = max(*load.values(), *links.values())
        self.fills = math.ceil(sum((*compute_s, *link_s)) / self.period_s)

    def measured_s(self, inflight: int, oldest_first: bool = False) -> float:
        """Seconds between results while the line is full."""
        plan = self.manifest.plan
        opening = Opening(
            session="0" * 16,
            owner="",
            links=dict.fromkeys(plan.devices, ""),
            head_link="",
            head_status="",
            lease_s=1.0,
            max_batches=inflight,
        )
        specs = {name: host_spec(self.manifest, plan, name, opening) for name in plan.devices}
        routers = {name: Router(spec.stages, spec.routes, inflight) for name, spec in specs.items()}
        ready = {n: TaskQueue(dict.fromkeys(s.depths, 0) if oldest_first else s.depths) for n, s in specs.items()}
        events: list[tuple[float, int, str, Task | tuple[int, tuple[int, ...]]]] = []
        ticket = itertools.count()
        busy: set[str] = set()
        link_free: dict[tuple[str, str], float] = defaultdict(float)
        left: list[float] = []
        first = plan.stages[0].device
        for batch in range(inflight):
            heapq.heappush(events, (0.0, next(ticket), first, (batch, (0,))))
        entered = inflight
        while events:
            now, _, name, what = heapq.heappop(events)
            if name == HEAD:
                left.append(now)
                if entered < SAMPLES:
                    heapq.heappush(events, (now, next(ticket), first, (entered, (0,))))
                    entered += 1
                continue
            if isinstance(what, Task):
                busy.discard(name)
                outcome = routers[name].done(what)
                ready[name].add(outcome.tasks)
                for receiver, values in outcome.sends.items():
                    link = name, receiver
                    link_free[link] = max(now, link_free[link]) + sum(self.link_s.get(v, 0.0) for v in values)
                    heapq.heappush(events, (link_free[link], next(ticket), receiver, (what.batch, values)))
            else:
                ready[name].add(routers[name].arrive(*what) or ())
            if ready[name] and name not in busy:
                busy.add(name)
                task = ready[name].take()
                heapq.heappush(events, (now + self.seconds[task.stage.name], next(ticket), name, task))
        full = left[SAMPLES // 3 : SAMPLES - inflight]
        return (full[-1] - full[0]) / (len(full) - 1)


def test_a_line_that_comes_back_keeps_its_period() -> None:
    """ResNet-18 on three devices and 100 Mbit/s, milliseconds: with the oldest sample first 9 % are lost."""
    line = Line(
        ["b", "a", "b", "c", "b", "c", "a"],
        [111.9, 32.0, 18.7, 61.1, 25.5, 90.9, 127.4],
        [0.8, 69.1, 34.8, 34.8, 34.8, 17.7, 26.2, 0.2],
    )
    assert line.measured_s(line.fills + 4) == pytest.approx(line.period_s, rel=0.01)
    assert line.measured_s(line.fills + 4, oldest_first=True) > 1.03 * line.period_s


@pytest.mark.parametrize("seed", range(40))
def test_random_lines_keep_their_period(seed: int) -> None:
    chosen = random.Random(seed)
    names = "abcd"[: chosen.randint(2, 4)]
    devices = [*names]
    while len(devices) < 8:
        devices.append(chosen.choice([name for name in names if name != devices[-1]]))
    weight = [chosen.lognormvariate(0.0, 1.0) for _ in devices]
    of_device = {name: sum(w for w, device in zip(weight, devices, strict=True) if device == name) for name in names}
    compute_s = [w / of_device[device] for w, device in zip(weight, devices, strict=True)]
    line = Line(devices, compute_s, [chosen.uniform(0.0, 0.15) for _ in range(len(devices) + 1)])
    assert line.measured_s(line.fills + 4) <= 1.1 * line.period_s


def test_depths() -> None:
    """A stage of k devices that take turns takes k periods; nothing comes between stages of one device."""
    stages = [
        manifests.stage("s0", "a", [0], [1]),
        *manifests.in_turn("s1", "bc", [1], [2]),
        *manifests.in_turn("s2", "bc", [2], [3]),
        manifests.stage("s3", "d", [3, 1], [4]),
        manifests.stage("s4", "a", [0, 1], [5]),
        manifests.stage("s5", "a", [4, 5], [6]),
    ]
    depths = {"s0": 0, "s1@b": 1, "s1@c": 1, "s2@b": 1, "s2@c": 1, "s3": 3, "s4": 0, "s5": 4}
    assert depths_of(manifests.plan(stages)) == depths
