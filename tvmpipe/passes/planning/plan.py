"""The plan: which device runs which primitive, and the YAML file a person can edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tvmpipe.errors import PlanError
from tvmpipe.passes.graph.node_names import primitives_called, rank, show_nodes
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.replicas import Group, Placement, conflict, show
from tvmpipe.passes.objectives.base import Objective
from tvmpipe.passes.planning.device_load import DeviceLoad
from tvmpipe.passes.planning.evaluate import Price
from tvmpipe.passes.planning.inflight import InFlight, in_flight
from tvmpipe.passes.planning.unique_keys import load_yaml
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.units import format_size

FORMAT_VERSION = 1
_SAME = 1e-9
_ONE_LINE = 1 << 20  # characters


@dataclass(frozen=True)
class Pessimistic:
    """Period, latency and bound of a plan where every cost is at the upper end of its interval, in seconds."""

    period_s: float
    latency_s: float
    bound_s: float | None


@dataclass(frozen=True)
class Plan(Price):
    """A placement with its price.

    Attributes: `placement` primitive name -> the devices that take its samples in turn; `bound_s` no plan of this model
    is better than this in the objective (None: not known); `origin` "single device", "fill by memory", "plan file",
    "fewer turns" (another plan without a device that took turns), "known" (the plan for another cluster), "in turn", or
    the planner that found it; `single_device_s` the objective on each device alone, None where the model does not fit;
    `pessimistic` what a robust plan was chosen by, None for others; its bound is in there, and `bound_s` None.
    """

    objective: Objective
    placement: Placement
    bound_s: float | None
    origin: str
    single_device_s: Mapping[str, float | None]
    pessimistic: Pessimistic | None = None

    def priced(self, price: Price) -> Plan:
        """The plan with the stages and figures of another price."""
        return replace(self, **vars(price))

    @property
    def value_s(self) -> float:
        """The objective's figure, in seconds."""
        return self.objective.of(self)

    @property
    def chosen_by_s(self) -> float:
        """What the search made as small as it could, in seconds."""
        return self.objective.of(self.pessimistic or self)

    @property
    def busiest(self) -> tuple[float, tuple[str, ...]]:
        """Seconds per sample of what is busy the longest, and what that is: (device,) or (sender, receiver) of a link.

        A device rather than a link.
        """
        busy: list[tuple[float, tuple[str, ...]]] = [(load.busy_s, (name,)) for name, load in self.loads.items()]
        busy += [(link.busy_s, (link.sender, link.receiver)) for link in self.links]
        return max(busy, key=lambda one: one[0], default=(0.0, ()))

    @property
    def bottleneck(self) -> tuple[str, ...]:
        """What takes the period, as in `busiest`; empty where that is links' latencies, for want of samples at once."""
        busy_s, ends = self.busiest
        return ends if self.period_s <= busy_s * (1 + _SAME) else ()

    @property
    def in_flight(self) -> InFlight:
        """Samples at once that keep the bottleneck busy, as far as memories hold them."""
        return in_flight(self.stages, self.loads, self.busiest[0], self.latency_s, self.links_s)

    @property
    def gap(self) -> float | None:
        """Relative distance of the plan to the bound; 0 means proven optimal."""
        if self.bound_s is None:
            return None
        return max(0.0, self.value_s - self.bound_s) / self.value_s if self.value_s > 0 else 0.0

    @property
    def best_single(self) -> tuple[str, float] | None:
        """The fastest single device that can hold the model, and its figure in seconds."""
        fitting = [(seconds, name) for name, seconds in self.single_device_s.items() if seconds is not None]
        return (min(fitting)[1], min(fitting)[0]) if fitting else None


def explain_missing(loads: Mapping[str, DeviceLoad]) -> str:
    """Which devices miss how many bytes, and of what they hold too much."""
    return "; ".join(
        f"{name} misses {load.missing_bytes} bytes ({format_size(load.weight_bytes)} of weights"
        + (f", {format_size(load.state_bytes)} of states" if load.state_bytes else "")
        + f" and {format_size(load.activation_bytes)} of activations in {format_size(load.memory_bytes or 0)})"
        for name, load in loads.items()
        if load.missing_bytes
    )


def to_yaml(plan: Plan, graph: PrimitiveGraph, model_sha256: str) -> str:
    """The plan as a file to read, edit and compile from again with `--plan`; comments say what is where."""
    head = {
        "format": FORMAT_VERSION,
        "model_sha256": model_sha256,
        "objective": plan.objective.name,
        "predicted": {"period_s": round(plan.period_s, 9), "latency_s": round(plan.latency_s, 9)},
    }
    return (
        "# Move a primitive by changing the device behind it, then: tvmpipe compile MODEL --plan THIS_FILE\n"
        "# A list of devices, [a, b], takes samples in turn.\n"
        "# A line may also name an ONNX node, or be a shell pattern for what no other line names.\n"
        + yaml.safe_dump(head, sort_keys=False)
        + _left(graph)
        + "placement:\n"
        + "".join(_line(name, devices, graph) for name, devices in written(plan.placement).items())
    )


def _left(graph: PrimitiveGraph) -> str:
    nodes = left_nodes(graph)
    if not nodes:
        return ""
    told = yaml.safe_dump({"onnxruntime": nodes}, sort_keys=False, allow_unicode=True, width=_ONE_LINE)
    return f"# What ONNX Runtime runs, and why; an ONNX node that is added here is left to it, too.\n{told}"


def left_nodes(graph: PrimitiveGraph) -> dict[str, str]:
    """ONNX nodes that ONNX Runtime runs, by their labels, and why."""
    found: dict[str, str] = {}
    for primitive in graph.by_name().values():
        if primitive.fallback is not None:
            reasons = primitive.fallback.reasons
            first = next(iter(reasons.values()))
            found.update((label, reasons.get(label, first)) for label in primitive.onnx_nodes)
    return found


def _line(name: str, devices: str | list[str], graph: PrimitiveGraph) -> str:
    entry = yaml.dump({name: devices}, Dumper=_InlineLists, width=_ONE_LINE).rstrip("\n")
    nodes = show_nodes(graph.by_name()[name].onnx_nodes)
    return f"  {entry}  # {nodes}\n" if nodes else f"  {entry}\n"


def written(placement: Placement) -> dict[str, str | list[str]]:
    """A placement as it stands in files: a device, or a list of those that take turns."""
    return {name: list(group) if len(group) > 1 else group[0] for name, group in placement.items()}


class _InlineLists(yaml.SafeDumper):
    """A line for each primitive."""


_InlineLists.add_representer(
    list, lambda dumper, devices: dumper.represent_sequence("tag:yaml.org,2002:seq", devices, flow_style=True)
)


def read_placement(path: Path, graph: PrimitiveGraph, cluster: Cluster, model_sha256: str) -> dict[str, Group]:
    """The placement in a plan file, checked against model and cluster. Raises PlanError."""
    raw = _read(path)
    if raw.get("model_sha256", model_sha256) != model_sha256:
        raise PlanError(f"plan file {path} was made for another model (sha256 {raw['model_sha256']})")
    placed = {str(name): value if isinstance(value, list) else [value] for name, value in raw["placement"].items()}
    devices = [device.name for device in cluster.devices]
    expected = graph.by_name()
    for name, several in placed.items():
        if not several:
            raise PlanError(f"plan file {path} puts {name} on an empty list; allowed: {', '.join(devices)}")
        unknown = [device for device in several if device not in devices]
        if unknown:
            what = "nothing" if unknown[0] is None else repr(unknown[0])
            raise PlanError(f"plan file {path} puts {name} on {what}; allowed: {', '.join(devices)}")
    placement = _placed(path, graph, {name: tuple(several) for name, several in placed.items()})
    missing = [name for name in expected if name not in placement]
    if missing:
        raise PlanError(f"plan file {path} does not place {missing[0]!r} and {len(missing) - 1} other primitives")
    if (wrong := conflict(placement)) is not None:
        raise PlanError(f"plan file {path}: {wrong}")
    return {name: placement[name] for name in expected}


def read_left(path: Path) -> dict[str, str]:
    """The ONNX nodes that a plan file leaves to ONNX Runtime, and why. Raises PlanError."""
    nodes = _read(path).get("onnxruntime") or {}
    if isinstance(nodes, list):
        nodes = dict.fromkeys(nodes)
    if not isinstance(nodes, dict):
        raise PlanError(f"plan file {path} has an 'onnxruntime' that names no ONNX nodes")
    return {str(label): str(why or f"the plan file leaves node {str(label)!r} to it") for label, why in nodes.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = load_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise PlanError(f"plan file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"plan file {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("placement"), dict):
        raise PlanError(f"plan file {path} has no 'placement' that maps primitives to devices")
    if raw.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise PlanError(f"plan file {path} has format {raw['format']}; this version reads {FORMAT_VERSION}")
    return raw


def _placed(path: Path, graph: PrimitiveGraph, entries: Placement) -> dict[str, Group]:
    """Primitive name -> place. Names of primitives count before those of ONNX nodes, and these before patterns."""
    placement: dict[str, Group] = {}
    ranks: dict[str, int] = {}
    for wanted in sorted(entries, key=lambda wanted: rank(graph, wanted)):
        place, own = entries[wanted], rank(graph, wanted)
        names = primitives_called(graph, wanted)
        if not names:
            raise PlanError(f"plan file {path} places {wanted!r}, which is no primitive or ONNX node of this model")
        for name in names:
            if ranks.setdefault(name, own) == own and placement.setdefault(name, place) != place:
                raise PlanError(f"plan file {path} puts {name} on both {show(placement[name])!r} and {show(place)!r}")
    return placement


def resolve_pins(graph: PrimitiveGraph, pins: Mapping[str, str]) -> dict[str, str]:
    """Pins -> primitive name -> device.

    A pin names a primitive or an ONNX node, or is a shell pattern ("*conv2d*", "/encoder/layer.0/*"). Raises PlanError
    for one that matches nothing.
    """
    resolved: dict[str, str] = {}
    for pattern, device in pins.items():
        names = primitives_called(graph, pattern)
        if not names:
            raise PlanError(f"pin {pattern!r} matches no primitive or ONNX node; `tvmpipe show` lists their names")
        for name in names:
            if resolved.get(name, device) != device:
                raise PlanError(f"pins put {name} on both {resolved[name]!r} and {device!r}")
            resolved[name] = device
    return resolved
