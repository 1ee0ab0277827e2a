"""Try other tiles than the rules' own on the devices themselves, and remember what was faster.

The search space of a primitive is what its rule may decide (`CpuModel.choose`); the rule's own schedule is the first
candidate, so that nothing gets slower. Records are a MetaSchedule database (`workloads.json`, `records.json`) per
target and thread count, which can be copied, shared and extended.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmpipe.errors import InputError
from tvmpipe.passes.backend.codegen.llvm import compile_function
from tvmpipe.passes.backend.partition import Stage
from tvmpipe.passes.backend.records import open_records, target_key
from tvmpipe.passes.kernels.schedule import apply_rules, narrow
from tvmpipe.passes.options import BuildOptions
from tvmpipe.profiling.measure import RemoteTimer, remote_timer
from tvmpipe.targets.description.cluster import Cluster, Device
from tvmpipe.targets.description.cpu_model import Choices, describe_cpu

logger = logging.getLogger(__name__)

_HOT = 0.8  # share of a stage's time that the primitives to be tuned make up
_WORTHWHILE = 0.97  # of the rule's time; less is noise
_CONFIRMATIONS = 5


def tune(stages: Sequence[Stage], cluster: Cluster, options: BuildOptions) -> None:
    """Measure up to `options.tune` schedules of each hot primitive of each stage; add the best to `options.records`.

    A primitive that several stages have is measured once.

    Raises InputError where the options do not say on what devices and where to keep what is found, DeviceError when a
    device fails.
    """
    if not options.tune:
        if options.records is not None and not options.records.is_dir():
            raise InputError(f"records folder {options.records} does not exist; --tune makes one")
        return
    if options.records is None or options.tracker is None:
        raise InputError("tuning needs a folder for its records (--records) and a tracker (--tracker)")
    devices = {device.name: device for device in cluster.devices}
    done: set[tuple[str, str]] = set()
    for stage in (one for one in stages if not one.shape.codegen):  # others have no schedules
        for name in stage.shape.devices:
            with remote_timer(options.tracker, devices[name], options.cluster_key) as timer:
                _tune_stage(stage, devices[name], options.tune, options.records, timer, done)


def _tune_stage(
    stage: Stage, device: Device, trials: int, records: Path, timer: RemoteTimer, done: set[tuple[str, str]]
) -> None:
    calls = _calls(stage.module)
    found = {}
    for name in calls:
        baseline = _Candidate(stage.module[name], device, {})
        found[name] = (baseline, calls[name] * baseline.seconds(timer))
    whole = sum(total for _, total in found.values())
    spent = 0.0
    for name, (baseline, total) in sorted(found.items(), key=lambda item: -item[1][1]):
        if spent >= _HOT * whole:
            break
        spent += total
        key = (target_key(device.target, device.threads), str(stage.module[name].script()))
        if key not in done:
            done.add(key)
            _tune_function(name, baseline, trials, records, timer)


def _tune_function(name: str, baseline: _Candidate, trials: int, records: Path, timer: RemoteTimer) -> None:
    best, best_s = baseline, baseline.seconds(timer)
    for made in itertools.islice(_decisions(baseline.offered, name), max(0, trials - 1)):
        try:
            candidate = _Candidate(baseline.function, baseline.device, made)
            seconds = candidate.seconds(timer)
        except Exception as error:  # noqa: BLE001  # TVM refuses some combinations with many exception types
            logger.debug("%s with %s: %s", name, made, error)
            continue
        if seconds < best_s:
            best, best_s = candidate, seconds
    if best is baseline:
        return
    # Side by side once more: the first measurement may have been lucky.
    ratios = sorted(best.seconds(timer) / baseline.seconds(timer) for _ in range(_CONFIRMATIONS))
    ratio = ratios[_CONFIRMATIONS // 2]
    logger.info("%s: %s takes %.2f of the rule's time", name, dict(best.made), ratio)
    if ratio < _WORTHWHILE:
        known = open_records(records, baseline.device.target, baseline.device.threads)
        known.add(baseline.function, best.schedule, best_s)


class _Candidate:
    """A primitive with some decisions made; compiled and sent when it is first timed."""

    def __init__(self, function: Any, device: Device, made: Mapping[str, Any]) -> None:
        self.function, self.device, self.made = narrow(function), device, made
        choices = Choices(made)
        self.schedule = apply_rules(self.function, describe_cpu(device.target, device.threads, choices))
        self.offered = choices.offered
        self._loaded: Any = None
        self._tensors: list[Any] = []

    def seconds(self, timer: RemoteTimer) -> float:
        if self._loaded is None:
            self._loaded = timer.load(
                compile_function(self.schedule.mod["main"], self.device.target, self.device.threads)
            )
            shapes = [(tuple(int(e) for e in p.shape), str(p.dtype)) for p in self.function.params]
            self._tensors = timer.tensors(shapes)
        return timer.seconds(self._loaded, self._tensors)


def _decisions(offered: Mapping[str, list[Any]], seed: str) -> Iterator[dict[str, Any]]:
    """All combinations but the rule's own, in random order that is the same every time."""
    combinations = [dict(zip(offered, values, strict=True)) for values in itertools.product(*offered.values())][1:]
    random.Random(seed).shuffle(combinations)  # no secret
    yield from combinations


def _calls(module: Any) -> dict[str, int]:
    """How often `main` calls each TIR function of a stage."""
    counts: dict[str, int] = {}
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if getattr(getattr(binding.value, "op", None), "name", "") == "relax.call_tir":
                name = binding.value.args[0].name_hint
                counts[name] = counts.get(name, 0) + 1
    return counts
