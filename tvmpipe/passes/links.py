"""What travels between devices for each sample: messages, and what they ask of each link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvmpipe.manifest import Encoding
from tvmpipe.passes.primitives import PrimitiveGraph
from tvmpipe.passes.stages import StageShape
from tvmpipe.targets.cluster import HEAD, Cluster
from tvmpipe.tensors import TensorSpec

Encodings = Mapping[tuple[str, str], Encoding]
"""(sender, receiver) -> how float32 tensors travel between them; "none" where nothing is said."""

_SHRINKS: dict[Encoding, int] = {"none": 1, "fp16": 2, "int8": 4}


@dataclass(frozen=True)
class Message:
    """Tensors that leave together: all that `stage` (None: the head) makes and `receiver` needs.

    A tensor reaches each device once, however many stages read it there; none is sent where it was made.
    """

    stage: int | None
    sender: str
    receiver: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class LinkLoad:
    """What a plan asks of one direction of a link for each sample: bytes after encoding, seconds they take."""

    sender: str
    receiver: str
    encoding: Encoding
    values: tuple[int, ...]
    messages: int
    size_bytes: int
    busy_s: float


def messages_of(graph: PrimitiveGraph, stages: Sequence[StageShape]) -> list[Message]:
    """Every message of one sample: the head's first, then those of the stages in their order."""
    made_by = {value: number for number, stage in enumerate(stages) for value in stage.outputs}
    wanted: dict[tuple[int | None, str], dict[int, None]] = {}
    for stage in stages:
        for value in stage.inputs:
            source = made_by.get(value)
            if source is None or stages[source].device != stage.device:
                wanted.setdefault((source, stage.device), {})[value] = None
    for value in graph.model_outputs.values():
        wanted.setdefault((made_by[value], HEAD), {})[value] = None
    ordered = sorted(wanted, key=lambda key: -1 if key[0] is None else key[0])  # stable: receivers as they were met
    return [
        Message(number, HEAD if number is None else stages[number].device, receiver, tuple(wanted[number, receiver]))
        for number, receiver in ordered
    ]


def encoded_bytes(spec: TensorSpec, encoding: Encoding) -> int:
    """Bytes of a tensor on a link. Only float32 is encoded; the few bytes of an int8 tensor's range do not count."""
    return spec.size_bytes // _SHRINKS[encoding] if spec.dtype == "float32" else spec.size_bytes


def message_s(graph: PrimitiveGraph, cluster: Cluster, message: Message, encodings: Encodings) -> float:
    """Seconds from when a message leaves until all of it has arrived."""
    encoding = encodings.get((message.sender, message.receiver), "none")
    size = sum(encoded_bytes(graph.values[value].spec, encoding) for value in message.values)
    return cluster.link(message.sender, message.receiver).transfer_s(size)


def link_loads(
    graph: PrimitiveGraph, cluster: Cluster, messages: Sequence[Message], encodings: Encodings
) -> tuple[LinkLoad, ...]:
    """The load of every (sender, receiver) that carries something, in the order in which they first do."""
    pairs: dict[tuple[str, str], list[Message]] = {}
    for message in messages:
        pairs.setdefault((message.sender, message.receiver), []).append(message)
    loads = []
    for (sender, receiver), mine in pairs.items():
        encoding = encodings.get((sender, receiver), "none")
        values = tuple(value for message in mine for value in message.values)
        loads.append(
            LinkLoad(
                sender=sender,
                receiver=receiver,
                encoding=encoding,
                values=values,
                messages=len(mine),
                size_bytes=sum(encoded_bytes(graph.values[value].spec, encoding) for value in values),
                busy_s=sum(message_s(graph, cluster, message, encodings) for message in mine),
            )
        )
    return tuple(loads)
