"""PipeEdge's YAML files: `devices.yml` names boards by type, `device_types.yml` and `models.yml` lie beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.workloads.named import Named, read_yaml
from tvmpipe.errors import InputError
from tvmpipe.passes.placement.problem import Problem, Tensor

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_BYTES = {"torch.float32": 4, "torch.float16": 2, "torch.bfloat16": 2, "torch.float64": 8, "torch.int8": 1}


class _Profile(BaseModel):
    batch_size: Annotated[int, Field(ge=1)]
    dtype: str
    time_s: list[_Number]


class _Type(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    bw_Mbps: _Number
    mem_MB: _Number
    model_profiles: dict[str, list[_Profile]] | None = None


class _Model(BaseModel):
    layers: Annotated[int, Field(ge=0)]
    mem_MB: list[_Number]
    parameters_in: Annotated[int, Field(ge=0)]
    parameters_out: list[Annotated[int, Field(ge=0)]]


@dataclass(frozen=True)
class Files:
    """The three files of a folder."""

    root: Path
    types: Mapping[str, _Type]
    models: Mapping[str, _Model]
    hosts: Mapping[str, list[str]]


def read_files(path: Path) -> Files:
    """The folder, or the one in which a file given lies. Raises InputError."""
    root = path if path.is_dir() else path.parent
    hosts = path if path.is_file() and path.name not in ("models.yml", "device_types.yml") else root / "devices.yml"
    return Files(
        root,
        read_yaml(root / "device_types.yml", dict[str, _Type]),
        read_yaml(root / "models.yml", dict[str, _Model]),
        {kind: names or [] for kind, names in read_yaml(hosts, dict[str, list[str] | None]).items()},
    )


def read(
    path: Path,
    *,
    model: str | None = None,
    boards: Sequence[tuple[str, int]] = (),
    batch: int | None = None,
) -> Named:
    """The chain of one model's layers on the boards of `devices.yml`, or on so many `boards` of each type.

    A type may be given by any part of its name that only one has: RCC-VE is spelled two ways in the files.
    Without `model`, the first one that has layers. Raises InputError.
    """
    files = read_files(path)
    usable = [name for name, one in files.models.items() if one.layers]
    chosen = model or (usable[0] if usable else None)
    if chosen not in usable:
        raise InputError(f"workload {files.root} has no model {chosen!r}; allowed: {', '.join(usable)}")
    layers = files.models[chosen]
    if not (len(layers.mem_MB) == len(layers.parameters_out) == layers.layers):
        raise InputError(f"workload {files.root}: {chosen} has {layers.layers} layers and lists of another length")
    if boards:
        hosts: dict[str, list[str]] = {}
        for kind, count in boards:
            names = hosts.setdefault(_type(files, kind), [])
            names += [f"{kind}-{i}" for i in range(len(names), len(names) + count)]
    else:
        hosts = {_type(files, kind): names for kind, names in files.hosts.items() if names}
    devices = [(host, files.types[kind], kind) for kind, names in hosts.items() for host in names]
    if not devices:
        raise InputError(f"workload {files.root}: there are no boards")
    if len({host for host, _, _ in devices}) < len(devices):
        raise InputError(f"workload {files.root}: two boards have the same name")
    for host, one, _ in devices:
        if not one.bw_Mbps:
            raise InputError(f"workload {files.root}: {host} has no bandwidth")
    profiles = [_profile(files, kind, one, chosen, batch) for _, one, kind in devices]
    if len({(p.batch_size, p.dtype) for p in profiles}) > 1:
        raise InputError(f"workload {files.root}: profiles of {chosen} differ in batch or type; choose with --batch")
    count, item_bytes = len(devices), _BYTES.get(profiles[0].dtype)
    if item_bytes is None:
        raise InputError(f"workload {files.root}: dtype {profiles[0].dtype!r} is not known")
    for profile in profiles:
        if len(profile.time_s) != layers.layers:
            raise InputError(f"workload {files.root}: a profile of {chosen} has {len(profile.time_s)} times")
    mbps = np.array([one.bw_Mbps for _, one, _ in devices])
    bandwidth = np.full((count + 1, count + 1), np.inf)  # what the head does is not counted
    bandwidth[:count, :count] = np.minimum.outer(mbps, mbps) * 2**20 / 8
    sizes = [float(out * item_bytes * profiles[0].batch_size) for out in layers.parameters_out]
    problem = Problem(
        names=tuple(str(layer) for layer in range(1, layers.layers + 1)),
        devices=tuple(host for host, _, _ in devices),
        time_s=np.array([profile.time_s for profile in profiles]).T,
        weight_bytes=np.array(layers.mem_MB) * 2**20,
        working_bytes=np.zeros(layers.layers),
        memory_bytes=np.array([one.mem_MB for _, one, _ in devices]) * 2**20,
        tensors=tuple(Tensor(i, (i + 1,), sizes[i]) for i in range(layers.layers - 1)),
        bandwidth_bps=bandwidth,
        latency_s=np.zeros((count + 1, count + 1)),
        model="overlapped",
        contiguous=True,
    )
    return Named(chosen, problem, tuple(range(1, layers.layers + 1)), problem.devices, "s")


def _type(files: Files, kind: str) -> str:
    """The one type that a name means. The boards' file may say RCC-VE-C2558 where the types' says RCC-VE-C2000."""
    if kind in files.types:
        return kind
    found = [name for name in files.types if kind in name]
    stem = kind.rsplit("-", 1)[0]
    found = found or [name for name in files.types if name.rsplit("-", 1)[0] == stem]
    if len(found) != 1:
        raise InputError(f"workload {files.root} has no board type {kind!r}; allowed: {', '.join(files.types)}")
    return found[0]


def _profile(files: Files, kind: str, one: _Type, model: str, batch: int | None) -> _Profile:
    profiles = (one.model_profiles or {}).get(model, [])
    fitting = [profile for profile in profiles if batch in (None, profile.batch_size)]
    if not fitting:
        raise InputError(
            f"workload {files.root}: {kind} has no profile of {model}{f' at batch {batch}' if batch else ''}"
        )
    return fitting[0]
