"""What a head tells a device: who it is, the stages to host and where their tensors go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from tvmpipe.manifest import (
    HEAD,
    BucketEntry,
    Encoding,
    Manifest,
    PlanEntry,
    StageEntry,
    StateEntry,
    Turn,
    memory_bytes_of,
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(_Frozen):
    """Who asks for a device: `token` proves the same head later, `owner` is for people."""

    token: str
    owner: str


class Peer(_Frozen):
    """Somebody who is sent tensors, of the batches that are its turn: a device by name, or the head.

    `bandwidth_bps` and `latency_s` are what the plan counts on for the link there.
    """

    name: str
    address: str
    encoding: Encoding
    turn: Turn = Turn()
    bandwidth_bps: float
    latency_s: float


class HostSpec(_Frozen):
    """One device's part of an opened pipeline.

    Attributes: `session` 16 hex digits that every message carries; `owner` who opened it, for people; `turn` the
    batches that come here; `depths` stage -> how much later than a batch's entry it should run (see `depths_of`);
    `routes` value id -> peers that are sent it; `status_address` where the head hears how the device is; `lease_s`
    seconds without a word from the head after which the device is free again; `max_batches` how many batches may be
    under way; `limit_bytes` the most that the tensors of one sample in a message may claim; `trace` whether to note
    when what was done; `states` those that its stages read or make, of `slots` sequences each; `announced` buckets
    whose batches the head tells the device of with no tensor.
    """

    session: str
    device: str
    owner: str
    threads: int
    turn: Turn
    stages: tuple[StageEntry, ...]
    depths: dict[str, int]
    routes: dict[int, tuple[str, ...]]
    peers: tuple[Peer, ...]
    status_address: str
    lease_s: float
    max_batches: int
    limit_bytes: int
    trace: bool = False
    states: tuple[StateEntry, ...] = ()
    slots: int = 0
    announced: tuple[int, ...] = ()

    @property
    def held(self) -> frozenset[int]:
        """Ids of what the stages find as states before a step."""
        return frozenset(before for state in self.states for before, _ in state.values)

    @property
    def state_bytes(self) -> int:
        """Bytes of all states of all slots."""
        return self.slots * sum(state.spec.size_bytes for state in self.states)

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights, which buckets share, of the activations of one bucket, and of states."""
        return memory_bytes_of(self.stages) + self.state_bytes


class Opening(_Frozen):
    """How a plan is opened: addresses of the stage links by device name, those of the head, and limits."""

    session: str
    owner: str
    links: dict[str, str]
    head_link: str
    head_status: str
    lease_s: float
    max_batches: int
    trace: bool = False


def depths_of(plan: PlanEntry) -> dict[str, int]:
    """Stage -> how many batches enter after one until it comes there, if each device on its way takes a period.

    One of k devices that take turns takes k periods; what a device makes for itself is there in the same.
    """
    makers: dict[int, list[StageEntry]] = {}
    depths: dict[str, int] = {}
    for stage in plan.stages:
        before = [makers[tensor.value] for tensor in stage.inputs if tensor.value in makers]
        depths[stage.name] = max((_depth_after(made, stage.device, depths) for made in before), default=0)
        for tensor in stage.outputs:
            makers.setdefault(tensor.value, []).append(stage)
    return depths


def _depth_after(made: Sequence[StageEntry], device: str, depths: Mapping[str, int]) -> int:
    return max(depths[one.name] + (0 if any(m.device == device for m in made) else one.turn.of) for one in made)


def _sample_bytes(bucket: BucketEntry, stages: Sequence[StageEntry]) -> int:
    """Bytes of all tensors of a sample of one bucket."""
    sizes = {t.value: t.spec.most_bytes for stage in stages for t in (*stage.inputs, *stage.outputs)}
    return sum(sizes.values()) + sum(spec.most_bytes for spec in (*bucket.inputs, *bucket.outputs))


def host_spec(manifest: Manifest, plan: PlanEntry, device: str, opening: Opening) -> HostSpec:
    """What `device` is told when `plan` is opened."""
    stages = tuple(stage for stage in plan.stages if stage.device == device)
    depths = depths_of(plan)
    turns = {**plan.turns, HEAD: Turn()}
    links = [link for link in plan.links if link.sender == device]
    routes: dict[int, tuple[str, ...]] = {}
    for link in links:
        for value in link.values:
            routes[value] = (*routes.get(value, ()), link.receiver)
    sequences = manifest.sequences
    states = () if sequences is None else tuple(one for one in sequences.states if _touch(stages, one))
    return HostSpec(
        session=opening.session,
        device=device,
        owner=opening.owner,
        threads=manifest.device(device).threads,
        turn=turns[device],
        stages=stages,
        depths={stage.name: depths[stage.name] for stage in stages},
        routes=routes,
        peers=tuple(
            Peer(
                name=link.receiver,
                address=opening.head_link if link.receiver == HEAD else opening.links[link.receiver],
                encoding=link.encoding,
                turn=turns[link.receiver],
                bandwidth_bps=link.bandwidth_bps,
                latency_s=link.latency_s,
            )
            for link in links
        ),
        status_address=opening.head_status,
        lease_s=opening.lease_s,
        max_batches=opening.max_batches,
        limit_bytes=max(_sample_bytes(bucket, plan.stages_of(n)) for n, bucket in enumerate(manifest.buckets)),
        trace=opening.trace,
        states=states,
        slots=sequences.count if sequences is not None and states else 0,
        announced=tuple(sorted(bucket for name, bucket in announced(manifest, plan) if name == device)),
    )


def announced(manifest: Manifest, plan: PlanEntry) -> frozenset[tuple[str, int]]:
    """Devices and buckets with a stage that reads nothing but states, where the head has no tensors to send.

    What such a stage makes may come back to its device from others, so that it cannot wait to hear of a batch by that.
    """
    states = () if manifest.sequences is None else manifest.sequences.states
    held = {before for state in states for before, _ in state.values}
    carried = {link.receiver: {*link.values} for link in plan.links if link.sender == HEAD}
    given = [{*bucket.model_inputs.values()} for bucket in manifest.buckets]
    alone = ((one.device, one.bucket) for one in plan.stages if held.issuperset(t.value for t in one.inputs))
    return frozenset((name, bucket) for name, bucket in alone if not carried.get(name, set()) & given[bucket])


def _touch(stages: Sequence[StageEntry], state: StateEntry) -> bool:
    """Whether any of these stages finds a state or leaves it. What is left others may read, who need not keep it."""
    found, left = ({pair[place] for pair in state.values} for place in (0, 1))
    return any(
        found & {tensor.value for tensor in stage.inputs} or left & {tensor.value for tensor in stage.outputs}
        for stage in stages
    )
