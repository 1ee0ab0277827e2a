"""The loads of a placement, kept up to date while nodes move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvmpipe.passes.placement.problem import Problem


@dataclass(frozen=True)
class Change:
    """What moving a node does: seconds added to resources."""

    node: int
    target: int
    seconds: dict[int, float]


class LoadTracker:
    """Seconds on every resource (devices, then links or ports) of a placement of a problem of throughput.

    Resources are numbers: devices from 0, then, "overlapped" only, links (sender * (D + 1) + receiver) or send ports
    and receive ports. The arithmetic is that of `period.loads`.
    """

    def __init__(self, problem: Problem, device_of: Sequence[int]) -> None:
        self.problem = problem
        self.device_of = list(map(int, device_of))
        self.count = problem.device_count
        self.head = problem.head
        self.summed = problem.model == "summed"
        self.by_link = problem.contention == "pair"
        self.times = problem.time_s.tolist()
        self.pace = (1.0 / problem.bandwidth_bps).tolist()
        self.given = [None if t.seconds is None else t.seconds.tolist() for t in problem.tensors]
        self.taking = [[problem.taking_s(tensor, d) for d in range(self.count)] for tensor in problem.tensors]
        self.size = [float(t.size_bytes) for t in problem.tensors]
        self.pays = [not problem.is_free(d) for d in range(self.count)] + [False]
        self.own = problem.own_bytes.tolist()
        self.shared_by = problem.shared_by
        self.shared = [one.size_bytes for one in problem.shared]
        self.sharing: list[dict[int, int]] = [defaultdict(int) for _ in problem.shared]  # device -> nodes there
        self.working = problem.working_bytes.tolist()
        self.memory = problem.memory_bytes.tolist()
        width = self.count + 1
        links = 0 if self.summed else width * width if self.by_link else 2 * width
        self.load = [0.0] * (self.count + links)
        self.readers: list[dict[int, int]] = [defaultdict(int) for _ in problem.tensors]
        self.on: list[set[int]] = [set() for _ in range(self.count)]
        self.held = [0.0] * self.count
        self.peak: list[float | None] = [None] * self.count
        self._fill()

    def _fill(self) -> None:
        for node, device in enumerate(self.device_of):
            self.load[device] += self.times[node][device]
            self.on[device].add(node)
            self.held[device] += self._arriving(node, device)
        seconds: dict[int, float] = defaultdict(float)
        for number, tensor in enumerate(self.problem.tensors):
            sender = self.head if tensor.producer is None else self.device_of[tensor.producer]
            for reader in tensor.consumers:
                self.readers[number][self.device_of[reader]] += 1
            for receiver in self._receivers(number):
                if receiver != sender:
                    self._move(number, sender, receiver, 1, seconds)
        for resource, more in seconds.items():
            self.load[resource] += more

    def _receivers(self, number: int) -> Iterator[int]:
        yield from (device for device, readers in self.readers[number].items() if readers)
        if self.problem.tensors[number].to_head:
            yield self.head

    def _move(self, number: int, sender: int, receiver: int, sign: int, seconds: dict[int, float]) -> None:
        table = self.given[number]
        if table is not None:
            cost = table[sender][receiver] if max(sender, receiver) < len(table) else 0.0
        else:
            cost = self.size[number] * self.pace[sender][receiver]
        if receiver != self.head:
            seconds[receiver] += sign * self.taking[number][receiver]
        if self.summed:
            for end in (sender, receiver):
                if self.pays[end]:
                    seconds[end] += sign * cost
            return
        for resource in self._resources(sender, receiver):
            seconds[resource] += sign * cost

    def _resources(self, sender: int, receiver: int) -> tuple[int, ...]:
        width = self.count + 1
        if self.by_link:
            return (self.count + sender * width + receiver,)
        return self.count + sender, self.count + width + receiver

    def change(self, node: int, target: int) -> Change:
        """What moving a node to a device would do."""
        origin = self.device_of[node]
        seconds: dict[int, float] = defaultdict(float)
        seconds[origin] -= self.times[node][origin]
        seconds[target] += self.times[node][target]
        tensors = self.problem.tensors
        for number in self.problem.inputs[node]:
            producer = tensors[number].producer
            sender = self.head if producer is None else self.device_of[producer]
            if origin != sender and self.readers[number][origin] == 1:
                self._move(number, sender, origin, -1, seconds)
            if target != sender and self.readers[number][target] == 0:
                self._move(number, sender, target, 1, seconds)
        for number in self.problem.outputs[node]:
            for receiver in self._receivers(number):
                if receiver != origin:
                    self._move(number, origin, receiver, -1, seconds)
                if receiver != target:
                    self._move(number, target, receiver, 1, seconds)
        return Change(node, target, seconds)

    def fits(self, node: int, target: int) -> bool:
        """Whether a device may run a node and has the memory for it next to what it holds."""
        if self.times[node][target] == float("inf"):
            return False
        peak = max(self.peak_bytes(target), self.working[node])
        more = self.own[node]
        more += sum(self.shared[place] for place in self.shared_by[node] if not self.sharing[place][target])
        return bool(self.held[target] + more + peak <= self.memory[target])

    def _arriving(self, node: int, device: int) -> float:
        """Bytes that a device holds more once it has a node too; shared weights are counted as being there."""
        more = self.own[node]
        for place in self.shared_by[node]:
            here = self.sharing[place]
            more += 0.0 if here[device] else self.shared[place]
            here[device] += 1
        return float(more)

    def _leaving(self, node: int, device: int) -> float:
        """The opposite."""
        less = self.own[node]
        for place in self.shared_by[node]:
            here = self.sharing[place]
            here[device] -= 1
            less += 0.0 if here[device] else self.shared[place]
        return float(less)

    def holds(self, device: int) -> bool:
        """Whether what is on a device fits its memory."""
        return bool(self.held[device] + self.peak_bytes(device) <= self.memory[device])

    def peak_bytes(self, device: int) -> float:
        """The largest working bytes on a device."""
        peak = self.peak[device]
        if peak is None:
            peak = self.peak[device] = max((self.working[n] for n in self.on[device]), default=0.0)
        return peak

    def commit(self, change: Change) -> None:
        """Move the node."""
        node, target = change.node, change.target
        origin = self.device_of[node]
        for resource, more in change.seconds.items():
            self.load[resource] += more
        for number in self.problem.inputs[node]:
            self.readers[number][origin] -= 1
            self.readers[number][target] += 1
        self.device_of[node] = target
        self.on[origin].remove(node)
        self.on[target].add(node)
        self.held[origin] -= self._leaving(node, origin)
        self.held[target] += self._arriving(node, target)
        if self.peak[origin] == self.working[node]:
            self.peak[origin] = None
        peak = self.peak[target]
        if peak is not None and peak < self.working[node]:
            self.peak[target] = self.working[node]

    @property
    def period_s(self) -> float:
        """The largest load."""
        return max(self.load)

    def ordered(self) -> bool:
        """Whether the devices can be ordered so that tensors only go forward."""
        after: list[set[int]] = [set() for _ in range(self.count)]
        for producer, reader in self.problem.graph.edges:
            a, b = self.device_of[producer], self.device_of[reader]
            if a != b:
                after[a].add(b)
        arriving = [0] * self.count
        for targets in after:
            for device in targets:
                arriving[device] += 1
        ready = [device for device in range(self.count) if not arriving[device]]
        seen = 0
        while ready:
            seen += 1
            for device in after[ready.pop()]:
                arriving[device] -= 1
                if not arriving[device]:
                    ready.append(device)
        return seen == self.count
