"""What a head tells a device: the stages to host and where their tensors go."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tvmpipe.manifest import HEAD, Encoding, Manifest, PlanEntry, StageEntry, Turn


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Peer(_Frozen):
    """Somebody who is sent tensors, of the batches that are its turn: a device by name, or the head."""

    name: str
    address: str
    encoding: Encoding
    turn: Turn = Turn()


class HostSpec(_Frozen):
    """One device's part of an opened pipeline.

    Attributes: `session` 16 hex digits that every message carries; `owner` who opened it, for people; `turn` the
    batches that come here; `routes` value id -> peers that are sent it; `status_address` where the head hears how the
    device is; `lease_s` seconds without a word from the head after which the device is free again; `max_batches` how
    many batches may be under way; `limit_bytes` the most that the tensors of one sample in a message may claim;
    `trace` whether to note when what was done.
    """

    session: str
    device: str
    owner: str
    threads: int
    turn: Turn
    stages: tuple[StageEntry, ...]
    routes: dict[int, tuple[str, ...]]
    peers: tuple[Peer, ...]
    status_address: str
    lease_s: float
    max_batches: int
    limit_bytes: int
    trace: bool = False


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


def receivers_of(manifest: Manifest, plan: PlanEntry) -> dict[int, tuple[str, ...]]:
    """Value id -> the devices (and the head) that must be sent it, besides the one that makes it.

    Of devices that take turns, each makes the value of its own batches and is sent that of its own batches.
    """
    made_on: dict[int, set[str]] = {value: {HEAD} for value in manifest.model_inputs.values()}
    for stage in plan.stages:
        for tensor in stage.outputs:
            made_on.setdefault(tensor.value, set()).add(stage.device)
    readers: dict[int, dict[str, None]] = {value: {} for value in made_on}
    for stage in plan.stages:
        for tensor in stage.inputs:
            readers[tensor.value][stage.device] = None
    for value in manifest.model_outputs.values():
        readers[value][HEAD] = None
    return {value: tuple(name for name in names if name not in made_on[value]) for value, names in readers.items()}


def host_spec(manifest: Manifest, plan: PlanEntry, device: str, opening: Opening) -> HostSpec:
    """What `device` is told when `plan` is opened."""
    stages = tuple(stage for stage in plan.stages if stage.device == device)
    turns = {**plan.turns, HEAD: Turn()}
    receivers = receivers_of(manifest, plan)
    made = [tensor.value for stage in stages for tensor in stage.outputs]
    met = {value: tuple(name for name in receivers[value] if turns[device].meets(turns[name])) for value in made}
    routes = {value: names for value, names in met.items() if names}
    names = dict.fromkeys(name for names in routes.values() for name in names)
    encodings = {link.receiver: link.encoding for link in plan.links if link.sender == device}
    sizes = {t.value: t.spec.size_bytes for stage in plan.stages for t in (*stage.inputs, *stage.outputs)}
    model = sum(spec.size_bytes for spec in (*manifest.model.inputs, *manifest.model.outputs))
    return HostSpec(
        session=opening.session,
        device=device,
        owner=opening.owner,
        threads=manifest.device(device).threads,
        turn=turns[device],
        stages=stages,
        routes=routes,
        peers=tuple(
            Peer(
                name=name,
                address=opening.head_link if name == HEAD else opening.links[name],
                encoding=encodings.get(name, "none"),
                turn=turns[name],
            )
            for name in names
        ),
        status_address=opening.head_status,
        lease_s=opening.lease_s,
        max_batches=opening.max_batches,
        limit_bytes=sum(sizes.values()) + model,
        trace=opening.trace,
    )
