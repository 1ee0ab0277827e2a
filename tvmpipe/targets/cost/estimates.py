"""The cost model that plans are made with: measured where something was measured, learned elsewhere, else a roofline.

For a primitive on a device, the first of these that there is:

1. its own measurement on this target, with as many threads, made from the code that would be made now while the
   device was not busy;
2. what was learned from the target's measurements, at least `learned.ENOUGH`; fewer than `learned.PLENTY` are averaged
   with what starts from the nearest target that has as many;
3. what was learned of the nearest target that has as many, corrected by what the target's own few measurements say;
4. the roofline.

What whole stages took on the target corrects all of these (`targets.store.stage_times`).

What was measured of a target holds with instructions for products of bytes as well, but for kernels that use them
(`targets.cost.measured`).

The nearest target is of the same architecture; width of vectors counts before threads, and between them whether it is
the same board, where that is the user's own. No measurement of one architecture says anything of another.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tvmpipe.targets.cost.calibration import calibrated, family_offsets
from tvmpipe.targets.cost.features import family
from tvmpipe.targets.cost.kernel_costs import kernel_names
from tvmpipe.targets.cost.learned import ENOUGH, PLENTY, Prediction, TargetModel, data_hash, fit, from_json
from tvmpipe.targets.cost.measured import Files, files_of, measured, stages, store_keys
from tvmpipe.targets.cost.model import CALL_S, Estimate, Work
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.boards import find_target, target_names
from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import (
    Measurement,
    ProfileStore,
    counting,
    identity,
    store_key,
    tvm_version,
)
from tvmpipe.targets.store.reference_loops import undisturbed, usual_s
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION
from tvmpipe.targets.store.stage_times import StageTime

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    """What is known of a device's target: measurements by identity, trees, whose they are, corrections of them."""

    measured: Mapping[str, Measurement]
    model: TargetModel | None
    based_on: str
    offsets: Mapping[str, float]


class LearnedCost:
    """Prices from the measurements in some folders; the last folder's count where several have one.

    The others' are corrected by how its device compares with theirs (`targets.cost.calibration`).

    Fitted trees are kept in `cache`, so that they are fitted once; None keeps them nowhere.
    """

    def __init__(
        self,
        stores: Sequence[ProfileStore],
        cache: Path | None = None,
        *,
        own: Sequence[TargetDescription] = (),
        ignored: Collection[str] = (),
    ) -> None:
        """`own` are boards of the user's; `ignored` are keys of primitives whose measurements do not count."""
        self._stores = tuple(stores)
        self._cache = cache
        self._own = tuple(own)
        self._ignored = frozenset(ignored)
        self._known: dict[tuple[TargetDescription, int], _Known] = {}
        self._counting: dict[tuple[TargetDescription, int], Mapping[str, Measurement]] = {}
        self._models: dict[str, TargetModel] = {}
        self._roofline = Roofline()

    def estimate(self, work: Work, device: Device) -> Estimate:
        """Seconds of one call, with an interval of 90 % where measurements of any kind are there."""
        if not work.key:
            return self._roofline.estimate(work, device)
        place = device.target, device.threads
        if place not in self._known:
            self._known[place] = self._look_up(*place)
        known = self._known[place]
        row = known.measured.get(identity(work.key, SCHEDULE_VERSION, tvm_version()))
        if row is not None and (not row.busy or known.model is None):
            cold = row.network_s / row.seconds
            return Estimate(row.network_s + CALL_S, "profile", row.low_s * cold + CALL_S, row.high_s * cold + CALL_S)
        if known.model is None:
            return self._roofline.estimate(work, device)
        offset = known.offsets.get(family(work), known.offsets.get("", 0.0))
        found = _offset_by(known.model.predict(work, *place), offset)
        return Estimate(found.seconds + CALL_S, "xgboost", found.low_s + CALL_S, found.high_s + CALL_S, known.based_on)

    def without(self, keys: Collection[str]) -> LearnedCost:
        """What is left when the primitives with these keys were never measured; fits anew what learned from them."""
        return LearnedCost(self._stores, None, own=self._own, ignored=self._ignored | set(keys))

    def stage_times(self, device: Device) -> list[StageTime]:
        """What stages took on the target of a device, made by the code that would be made now."""
        now = SCHEDULE_VERSION, tvm_version()
        rows = (row for store in self._stores for row in stages(store, device.target, device.threads))
        return [row for row in rows if (row.schedule, row.tvm) == now]

    def usual_tiles_s(self, target: TargetDescription) -> tuple[TargetDescription, float] | None:
        """The target whose measurements say what `target` costs on a thread, and what `peak.register_tiles` take there.

        Seconds on the device that its measurements are made to be of, the last folder's; None where nobody knows.
        """
        place = (target, 1) if len(self._rows(target, 1)) >= ENOUGH else self._nearest(target, 1)
        if place is None:
            return None
        usual = next(filter(None, (usual_s(measured(store, *place)) for store in self._stores[::-1])), ())
        return (place[0], usual[0]) if usual else None

    def _look_up(self, target: TargetDescription, threads: int) -> _Known:
        rows = self._rows(target, threads)
        if len(rows) >= ENOUGH:
            return _Known(rows, self._model(target, threads), "", {})
        nearest = self._nearest(target, threads)
        if nearest is None:
            return _Known(rows, None, "", {})
        model = self._model(*nearest)
        return _Known(rows, model, _name(*nearest, threads), corrections(model, rows.values(), target, threads))

    def _rows(self, target: TargetDescription, threads: int) -> Mapping[str, Measurement]:
        """What counts of all folders' measurements of a target, as the last folder's device would have made them."""
        if (target, threads) not in self._counting:
            files = tuple(files_of(store, target, threads) for store in self._stores)
            self._counting[target, threads] = _counted(files, self._ignored, frozenset(kernel_names()))
        return self._counting[target, threads]

    def _nearest(
        self, target: TargetDescription, threads: int, least: int = ENOUGH
    ) -> tuple[TargetDescription, int] | None:
        """The most alike target with at least so many measurements."""
        keys = {key for store in self._stores for key in store.targets()}
        found: list[tuple[tuple[float, bool, float, bool, str], TargetDescription, int]] = []
        for other in (target, *self._own, *map(find_target, target_names())):
            if other.architecture != target.architecture:
                continue
            for count in range(1, 65):
                if keys & store_keys(other, count) and len(self._rows(other, count)) >= least:
                    wide = abs(math.log2(other.vector_bits / target.vector_bits))
                    differs = other.identity != target.identity
                    foreign = differs and bool(target.board)
                    order = wide, foreign, abs(math.log2(count / threads)), differs, store_key(other, count)
                    found.append((order, other, count))
        return min(found, key=lambda one: one[0])[1:] if found else None

    def _model(self, target: TargetDescription, threads: int) -> TargetModel:
        key = store_key(target, threads)
        if key not in self._models:
            measured = self._rows(target, threads).values()
            rows = undisturbed(measured)
            nearest = None if len(measured) >= PLENTY else self._nearest(target, threads, PLENTY)
            near = None if nearest is None else self._model(*nearest)
            model = self._kept(key, data_hash(rows, near), target, threads)
            if model is None:
                logger.info("fitting trees to %d measurements of %s", len(rows), key)
                model = fit(rows, target, threads, near)
                self._keep(key, model)
            self._models[key] = model
        return self._models[key]

    def _kept(self, key: str, data: str, target: TargetDescription, threads: int) -> TargetModel | None:
        """Trees that were fitted to the same rows before, as their hash `data` says."""
        if self._cache is None or not (path := self._cache / f"{key}.model.json").is_file():
            return None
        try:
            return from_json(path.read_text(encoding="utf-8"), target, threads, data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.info("fitted trees in %s are not used: %s", path, error)
            return None

    def _keep(self, key: str, model: TargetModel) -> None:
        if self._cache is not None:
            try:
                self._cache.mkdir(parents=True, exist_ok=True)
                partial = self._cache / f"{key}.{os.getpid()}.part"
                partial.write_text(model.to_json(), encoding="utf-8")
                partial.replace(self._cache / f"{key}.model.json")
            except OSError as error:
                reason = error.strerror or error
                logger.warning("%s cannot be written (%s): costs are learned anew each time", self._cache, reason)


@functools.lru_cache(maxsize=32)
def _counted(files: tuple[Files, ...], ignored: frozenset[str], kernels: frozenset[str]) -> Mapping[str, Measurement]:
    """What counts of the measurements in files, the last one's first; kept, for every plan asks for the same."""
    found: dict[str, Measurement] = {}
    known = {"", *kernels}  # another version may have measured others
    for file in files:
        rows = (row for row in file.read() if row.work.key not in ignored and row.work.kernel in known)
        found = calibrated(found, counting(rows))
    return MappingProxyType(found)


def corrections(
    model: TargetModel, rows: Iterable[Measurement], target: TargetDescription, threads: int
) -> dict[str, float]:
    """log2 of measured over predicted, the median of each family drawn towards that of all; "" for all."""
    return family_offsets(
        (family(row.work), math.log2(row.network_s / model.predict(row.work, target, threads).seconds))
        for row in rows
        if not row.busy
    )


def _offset_by(prediction: Prediction, offset: float) -> Prediction:
    factor = 2.0**offset
    return Prediction(prediction.seconds * factor, prediction.low_s * factor, prediction.high_s * factor)


def _name(target: TargetDescription, threads: int, wanted: int) -> str:
    name = target.board or target.cpu
    return name if threads == wanted else f"{name} with {threads} threads"
