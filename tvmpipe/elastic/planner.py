"""Plans and compiles for the devices that are there, from what an elastic bundle keeps of its compilation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tvmpipe.bundle import Bundle
from tvmpipe.elastic.described import device_table, emulated_link
from tvmpipe.errors import BundleError, ClusterError, InfeasibleError
from tvmpipe.manifest import HEAD, DeviceEntry, FileEntry, PlanEntry
from tvmpipe.passes import driver
from tvmpipe.passes.backend.codegen import StageCode
from tvmpipe.passes.backend.describe_plan import PlanDescriber, device_entry
from tvmpipe.passes.backend.elastic_file import from_json, library_key
from tvmpipe.passes.backend.partition import CutPlan, Stage, partition
from tvmpipe.passes.backend.write_bundle import write_libraries
from tvmpipe.passes.driver import Planned
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.default_cost import default_cost
from tvmpipe.runtime.device.weights import mapped_weights
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.replanner import Proposal, Request, Speeds
from tvmpipe.targets.description.cluster import Cluster, Device, Link, parse_device
from tvmpipe.targets.store.profile_store import default_store

FOLDER = "elastic"
"""Below it are the files of plans that were made."""

_FUNCTION_S = 0.2  # what compiling a function takes, until one has been


@dataclass(frozen=True)
class _Found:
    """A plan that is not compiled yet, cut."""

    planned: Planned
    cut: CutPlan


class Planner:
    """Makes plans of one bundle; files of theirs are written below `root`. For one thread."""

    def __init__(self, bundle: Bundle, root: Path, profiles: Path | None) -> None:
        manifest = bundle.manifest
        if manifest.elastic is None:
            raise BundleError("this bundle keeps nothing of its compilation; compile it with --elastic")
        self._root = root
        (root / FOLDER).mkdir(exist_ok=True)
        files = [entry for entry in manifest.files if entry.path.endswith(".safetensors")]
        mapped = {entry: mapped_weights([bundle.path_of(entry)]) for entry in files}
        self._file_of: dict[str, FileEntry] = {name: entry for entry, held in mapped.items() for name in held}
        text = bundle.path_of(manifest.elastic).read_text(encoding="utf-8")
        weights = {name: array for held in mapped.values() for name, array in held.items()}
        kept = from_json(text, bundle.root, weights)
        self._fused = driver.restore(kept)
        self._libraries: dict[str, StageCode] = dict(kept.libraries)
        self._cluster = kept.cluster
        self._devices = {device.name: device for device in kept.cluster.devices}
        folder = profiles or default_store()
        model = default_cost(folder, kept.cluster.targets)
        self._options: BuildOptions = replace(kept.options, profiles=folder, cost_model=model)
        self._emulated: dict[str, Link] = {}
        self._found: dict[int, _Found] = {}
        self._plans = 0
        self._functions, self._compile_s = 0, 0.0

    def knows(self, name: str) -> bool:
        """As `Replanner.knows`."""
        return name in self._devices

    def describe(self, name: str, key: str, table: Mapping[str, Any], facts: AgentFacts | None = None) -> DeviceEntry:
        """As `Replanner.describe`."""
        if name == HEAD:
            raise ClusterError(f"a device cannot be called {HEAD!r}, which is the process that submits samples")
        if table or facts is not None or name not in self._devices:
            if not table and facts is None:
                raise ClusterError(f"nothing is known of device {name!r}; say what it is")
            told = {} if facts is None else device_table(facts)
            self._devices[name] = parse_device({**told, "name": name, "key": key, **table}, self._cluster.targets)
        if facts is not None and facts.emulated is not None:
            self._emulated[name] = emulated_link(facts.emulated, self._cluster.network)
        return device_entry(replace(self._devices[name], key=key))

    def _links(self, present: Collection[str]) -> dict[frozenset[str], Link]:
        """Links that the cluster file names, and those that devices emulate."""
        links = dict(self._cluster.links)
        for first, second in itertools.combinations((HEAD, *present), 2):
            ends = frozenset((first, second))
            slow = [self._emulated[end] for end in ends if end in self._emulated]
            if slow and ends not in links:
                links[ends] = Link(min(one.bandwidth_bps for one in slow), max(one.latency_s for one in slow))
        return links

    def propose(self, request: Request) -> Proposal:
        """As `Replanner.propose`."""
        unknown = [name for name in request.present if name not in self._devices]
        if unknown:
            raise ClusterError(f"nothing is known of device {unknown[0]!r}; say what it is")
        if not request.present:
            raise InfeasibleError("no device is left")
        devices = tuple(self._devices[name] for name in request.present)
        cluster = replace(self._cluster, devices=devices, links=self._links(request.present))
        cluster = as_measured(cluster, request.speeds)
        pins = {what: device for what, device in self._options.pins.items() if device in request.present}
        options = replace(self._options, pins=pins, time_limit_s=request.time_limit_s)
        planned = driver.plan(self._fused, cluster, options)
        self._plans += 1
        buckets = zip(planned.buckets.others, planned.bucket_prices(planned.plan), strict=True)
        cut = partition(planned.graph, planned.module, planned.plan, None, tuple(buckets), self._prefix(self._plans))
        self._found = {self._plans: _Found(planned, cut)}
        weights: dict[str, dict[str, None]] = {name: {} for name in planned.plan.loads}
        functions = 0
        for stage in cut.all_stages:
            for name in stage.hosted:
                weights[name].update(dict.fromkeys(self._file_of[weight.name].path for weight in stage.weights))
                if library_key(stage, self._device(planned, name)) not in self._libraries:
                    functions += len(getattr(stage.module, "functions", ()))
        rate = self._compile_s / self._functions if self._functions else _FUNCTION_S
        plan = planned.plan
        return Proposal(
            self._plans, plan.period_s, plan.latency_s, rate * functions, {n: tuple(w) for n, w in weights.items()}
        )

    def make(self, number: int) -> tuple[PlanEntry, tuple[DeviceEntry, ...]]:
        """A plan that was proposed last, compiled and written, and its devices. Raises TvmpipeError."""
        planned = self._found[number].planned
        began = time.monotonic()
        functions = 0

        def find(stage: Stage, device: Device) -> StageCode | None:
            nonlocal functions
            code = self._libraries.get(library_key(stage, device))
            if code is None:
                functions += len(getattr(stage.module, "functions", ()))
            return code

        made = driver.compile_plan(planned, find, self._prefix(number))
        if functions:
            self._functions += functions
            self._compile_s += time.monotonic() - began
        cut, planned = made.cuts[0], made.planned
        codes = {library.stage: library.code for library in made.libraries}
        for stage in cut.all_stages:
            for device, name in stage.hosted.items():
                self._libraries[library_key(stage, self._device(planned, device))] = codes[name]
        library_of = write_libraries(self._root, FOLDER, made.libraries)
        graphs = (planned.one_graph, *planned.graphs[1:])
        describer = PlanDescriber(
            graphs, planned.bucket_costs, planned.cluster, made.libraries, library_of, self._file_of
        )
        entry = describer.plan(cut)
        return entry, tuple(device_entry(self._device(planned, name)) for name in entry.devices)

    def _device(self, planned: Planned, name: str) -> Device:
        return next(device for device in planned.cluster.devices if device.name == name)

    @staticmethod
    def _prefix(number: int) -> str:
        return f"+{number}-"


def as_measured(cluster: Cluster, speeds: Speeds) -> Cluster:
    """The cluster whose devices and links are as fast as was measured."""
    devices = tuple(
        replace(device, slowdown=device.slowdown * speeds.devices.get(device.name, 1.0)) for device in cluster.devices
    )
    links = dict(cluster.links)
    for (first, second), factor in speeds.links.items():
        known = cluster.link(first, second)
        links[frozenset((first, second))] = replace(known, bandwidth_bps=known.bandwidth_bps / factor)
    return replace(cluster, devices=devices, links=links)
