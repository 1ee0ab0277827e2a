"""What travels between devices for each sample: messages, and what they ask of each link."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmpipe.manifest import Encoding
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.replicas import Group
from tvmpipe.passes.graph.stages import StageShape
from tvmpipe.targets.description.cluster import HEAD, Cluster
from tvmpipe.tensors import TensorSpec

Encodings = Mapping[tuple[str, str], Encoding]
"""(sender, receiver) -> how float32 tensors travel between them; "none" where nothing is said."""

AT_HEAD: Group = (HEAD,)

_SHRINKS: dict[Encoding, int] = {"none": 1, "fp16": 2, "int8": 4}


@dataclass(frozen=True)
class Message:
    """Tensors that leave together: all that `stage` (None: the head) makes and `receiver` needs.

    A tensor reaches each device once, however many stages read it there; none is sent where it was made. Of senders and
    receivers that take turns, n modulo their number says which one it is for sample n.
    """

    stage: int | None
    sender: Group
    receiver: Group
    values: tuple[int, ...]


@dataclass(frozen=True)
class LinkLoad:
    """What a plan asks of one direction of a link for a sample that goes this way: messages, bytes after encoding.

    `share` of all samples do, fewer than all only between devices that take turns; `busy_s` is the mean over all, of
    bytes alone: a link's latency delays samples and keeps it from nothing.
    """

    sender: str
    receiver: str
    encoding: Encoding
    values: tuple[int, ...]
    messages: int
    size_bytes: int
    busy_s: float
    share: float = 1.0


def messages_of(graph: PrimitiveGraph, stages: Sequence[StageShape]) -> list[Message]:
    """Every message of one sample: the head's first, then those of the stages in their order."""
    made_by = {value: number for number, stage in enumerate(stages) for value in stage.outputs}
    wanted: dict[tuple[int | None, Group], dict[int, None]] = {}
    for stage in stages:
        for value in stage.inputs:
            if value in graph.states.found:
                continue
            source = made_by.get(value)
            if source is None or stages[source].devices != stage.devices:
                wanted.setdefault((source, stage.devices), {})[value] = None
    for value in graph.model_outputs.values():
        wanted.setdefault((made_by[value], AT_HEAD), {})[value] = None
    ordered = sorted(wanted, key=lambda key: -1 if key[0] is None else key[0])  # stable: receivers as they were met
    return [
        Message(
            number, AT_HEAD if number is None else stages[number].devices, receiver, tuple(wanted[number, receiver])
        )
        for number, receiver in ordered
    ]


def encoded_bytes(spec: TensorSpec, encoding: Encoding) -> int:
    """Bytes of a tensor on a link. Only float32 is encoded; the few bytes of an int8 tensor's range do not count."""
    return spec.size_bytes // _SHRINKS[encoding] if spec.dtype == "float32" else spec.size_bytes


def sent_bytes(graph: PrimitiveGraph, values: Sequence[int], encoding: Encoding) -> float:
    """Bytes of values on a link, for each sample."""
    return sum(graph.sent(value, encoded_bytes(graph.values[value].spec, encoding)) for value in values)


def pairs_of(sender: Group, receiver: Group) -> list[tuple[str, str]]:
    """Who sends to whom between two groups, each pair for as many of the samples: one in so many as there are pairs.

    These are fewer than all where the numbers of devices have a divisor in common: of two and two, each has its own.
    """
    turns = range(math.lcm(len(sender), len(receiver)))
    return [(sender[turn % len(sender)], receiver[turn % len(receiver)]) for turn in turns]


def message_s(graph: PrimitiveGraph, cluster: Cluster, message: Message, encodings: Encodings) -> tuple[float, float]:
    """Seconds for which a message keeps its link busy, and the latency after them; of devices in turn the worst."""
    pairs = pairs_of(message.sender, message.receiver)
    return (
        max(busy_s(graph, cluster, *pair, message.values, encodings.get(pair, "none")) for pair in pairs),
        max(cluster.link(*pair).latency_s for pair in pairs),
    )


def busy_s(
    graph: PrimitiveGraph, cluster: Cluster, sender: str, receiver: str, values: Sequence[int], encoding: Encoding
) -> float:
    """Seconds for which values that go from one device to another, encoded as said, keep the link busy."""
    return cluster.link(sender, receiver).busy_s(round(sent_bytes(graph, values, encoding)))


def link_loads(
    graph: PrimitiveGraph, cluster: Cluster, messages: Sequence[Message], encodings: Encodings
) -> tuple[LinkLoad, ...]:
    """The load of every (sender, receiver) that carries something, in the order in which they first do."""
    carried: dict[tuple[str, str], list[Message]] = {}
    shares: dict[tuple[str, str], float] = {}
    for message in messages:
        pairs = pairs_of(message.sender, message.receiver)
        for pair in pairs:
            carried.setdefault(pair, []).append(message)
            shares[pair] = 1 / len(pairs)
    loads = []
    for (sender, receiver), mine in carried.items():
        encoding = encodings.get((sender, receiver), "none")
        share = shares[sender, receiver]
        values = tuple(value for message in mine for value in message.values)
        loads.append(
            LinkLoad(
                sender=sender,
                receiver=receiver,
                encoding=encoding,
                values=values,
                messages=len(mine),
                size_bytes=round(sent_bytes(graph, values, encoding)),
                busy_s=share * sum(busy_s(graph, cluster, sender, receiver, m.values, encoding) for m in mine),
                share=share,
            )
        )
    return tuple(loads)
