"""`cluster.toml`: the devices a model may run on and the links between them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tvmpipe.errors import ClusterError
from tvmpipe.manifest import HEAD
from tvmpipe.targets.description.boards import boards, find_target
from tvmpipe.targets.description.host import NATIVE
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.description.target_table import TargetEntry, TargetTableError, own_target
from tvmpipe.units import parse_duration, parse_rate, parse_size

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

# Gigabit Ethernet: 1,000 Mbit/s less what frames, IP and TCP take of it, and a round trip's half through one switch.
DEFAULT_BANDWIDTH_BPS = 117e6
DEFAULT_LATENCY_S = 0.5e-3

__all__ = ["HEAD", "Cluster", "Device", "Link", "load_cluster", "parse_cluster"]


@dataclass(frozen=True)
class Device:
    """A machine: `key` is what the tracker knows it by; `memory_bytes` None means no limit is planned for.

    `slowdown` is for an agent that emulates a device so many times slower than its target. `onnxruntime` says whether
    it has ONNX Runtime, for what cannot be compiled.
    """

    name: str
    key: str
    target: TargetDescription
    threads: int
    memory_bytes: int | None
    slowdown: float = 1.0
    onnxruntime: bool = True


@dataclass(frozen=True)
class Link:
    """The path between two machines, in bytes per second and seconds.

    Bytes keep it busy; for its latency they are on their way, and others with them.
    """

    bandwidth_bps: float
    latency_s: float

    def busy_s(self, size_bytes: int) -> float:
        """Seconds until the next message can follow one of `size_bytes`, which arrives `latency_s` after them."""
        return size_bytes / self.bandwidth_bps


@dataclass(frozen=True)
class Cluster:
    """Devices in the file's order, and every link that the file names; others are as `network` says.

    `default_network` says that the file does not, so that measured links go before it. `targets` are the user's own
    boards, which the file describes.
    """

    devices: tuple[Device, ...]
    links: dict[frozenset[str], Link]
    network: Link = Link(DEFAULT_BANDWIDTH_BPS, DEFAULT_LATENCY_S)
    default_network: bool = False
    targets: tuple[TargetDescription, ...] = ()

    def link(self, first: str, second: str) -> Link:
        """The link that carries tensors from `first` to `second`; either may be `HEAD`.

        A link is as fast one way as the other, and both ways at the same time.
        """
        return self.links.get(frozenset((first, second)), self.network)

    def only(self, name: str) -> Cluster:
        """The same cluster with a single device."""
        return replace(self, devices=tuple(device for device in self.devices if device.name == name))

    def without(self, name: str) -> Cluster:
        """The same cluster when a device is lost."""
        return replace(self, devices=tuple(device for device in self.devices if device.name != name))


_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"  # TVM splits what it sends at blanks and colons


class _DeviceEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=_NAME)]
    key: Annotated[str, Field(pattern=_NAME)] | None = None
    target: str = "native"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory: Annotated[int, BeforeValidator(parse_size), Field(gt=0)] | None = None
    slowdown: Annotated[float, Field(ge=1)] = 1.0
    onnxruntime: bool = True


class _LinkEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    between: Annotated[list[str], Field(min_length=2, max_length=2)]
    bandwidth: Annotated[float, BeforeValidator(parse_rate), Field(gt=0)] = DEFAULT_BANDWIDTH_BPS
    latency: Annotated[float, BeforeValidator(parse_duration), Field(ge=0)] = DEFAULT_LATENCY_S


class _NetworkEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bandwidth: Annotated[float, BeforeValidator(parse_rate), Field(gt=0)] = DEFAULT_BANDWIDTH_BPS
    latency: Annotated[float, BeforeValidator(parse_duration), Field(ge=0)] = DEFAULT_LATENCY_S


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: list[TargetEntry] = []
    device: Annotated[list[_DeviceEntry], Field(min_length=1)]
    link: list[_LinkEntry] = []
    network: _NetworkEntry | None = None


def parse_device(table: Mapping[str, Any], own: Sequence[TargetDescription] = ()) -> Device:
    """A device from what would be its [[device]] table; `own` are a user's boards. Raises ClusterError."""
    try:
        entry = _DeviceEntry.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        allowed = ", ".join(_DeviceEntry.model_fields)
        raise ClusterError(f"a device's {where or 'table'}: {first['msg']}; allowed: {allowed}") from None
    target = find_target(entry.target, own)
    threads = entry.threads or target.cores
    return Device(entry.name, entry.key or entry.name, target, threads, entry.memory, entry.slowdown, entry.onnxruntime)


def load_cluster(path: str | Path) -> Cluster:
    """Read a cluster file. Raises ClusterError naming the line and what is allowed."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin UTF-8 with a mark
    except UnicodeDecodeError as error:
        raise ClusterError(
            f"cluster file {path} is no text in UTF-8 (byte {error.start}); save it as UTF-8, as TOML is"
        ) from None
    except FileNotFoundError:
        raise ClusterError(f"cluster file {path} does not exist") from None
    except OSError as error:
        raise ClusterError(f"cluster file {path} cannot be read: {error}") from None
    return parse_cluster(text, str(path))


def parse_cluster(text: str, origin: str = "cluster.toml") -> Cluster:
    """A cluster from the text of a cluster file; `origin` is named in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ClusterError(f"{origin} is not valid TOML: {error}") from None
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise ClusterError(_explain(error.errors()[0], text, origin)) from None

    own: list[TargetDescription] = []
    for index, table in enumerate(file.target):
        try:
            own.append(own_target(table, [find_target(NATIVE), *boards(), *own]))
        except TargetTableError as error:
            raise ClusterError(f"{origin} line {_line_of(text, 'target', index, error.key)}: {error}") from None
    devices = []
    for index, entry in enumerate(file.device):
        try:
            target = find_target(entry.target, own)
        except ClusterError as error:
            line = _line_of(text, "device", index, "target")
            raise ClusterError(f"{origin} line {line}: {error}") from None
        threads = entry.threads or target.cores
        key = entry.key or entry.name
        devices.append(Device(entry.name, key, target, threads, entry.memory, entry.slowdown, entry.onnxruntime))
    names = [device.name for device in devices]
    for index, name in enumerate(names):
        if name in names[:index] or name == HEAD:
            line = _line_of(text, "device", index, "name")
            raise ClusterError(f"{origin} line {line}: device name {name!r} is taken; names must be unique")
    links = {}
    for index, link in enumerate(file.link):
        for end in link.between:
            if end not in (*names, HEAD):
                line = _line_of(text, "link", index, "between")
                allowed = ", ".join((*names, HEAD))
                raise ClusterError(f"{origin} line {line}: {end!r} is no device; allowed: {allowed}")
        links[frozenset(link.between)] = Link(link.bandwidth, link.latency)
    network = file.network or _NetworkEntry()
    shared = Link(network.bandwidth, network.latency)
    return Cluster(tuple(devices), links, shared, file.network is None, tuple(own))


def _explain(error: Any, text: str, origin: str) -> str:
    """One sentence for the first validation error, with the line it is on."""
    where = error["loc"]
    table = where[0] if where else ""
    listed = len(where) > 1 and isinstance(where[1], int)
    index = where[1] if listed else 0
    key = str(where[2]) if len(where) > 2 else str(where[1]) if len(where) > 1 and not listed else ""
    line = _line_of(text, str(table), index, key)
    shown = f"[[{table}]]" if listed else f"[{table}]"
    models: dict[str, type[BaseModel]] = {
        "target": TargetEntry,
        "device": _DeviceEntry,
        "link": _LinkEntry,
        "network": _NetworkEntry,
    }
    model = models.get(str(table), _File) if key else _File
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(model.model_fields)
        place = f"{shown} has no key {key!r}" if key else f"there is no table {table!r}"
        return f"{origin} line {line}: {place}; allowed: {allowed}"
    if error["type"] == "missing" and not key:
        return f"{origin}: no [[{table}]] table; at least one is needed"
    if error["type"] == "missing":
        return f"{origin} line {line}: {shown} needs the key {key!r}"
    if error["type"] == "list_type" and not key:
        return f"{origin} line {line}: {table} is a list of tables; write [[{table}]] above each"
    message = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
    return f"{origin} line {line}: {key or table}: {message}"


def _line_of(text: str, table: str, index: int, key: str) -> int:
    """The line of `key` in the `index`-th `[[table]]`; of the table's header when the key is not written."""
    header, seen, inside, on_top = 1, -1, False, True
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            on_top = False
            inside = re.fullmatch(rf"\[\[?\s*{re.escape(table)}\s*\]\]?.*", stripped) is not None
            seen += inside
            if inside and seen == index:
                header = number
        elif (inside and seen == index and key and re.match(rf"\"?{re.escape(key)}\"?\s*=", stripped)) or (
            not key and on_top and re.match(rf"\"?{re.escape(table)}\"?\s*=", stripped)
        ):
            return number
    return header
