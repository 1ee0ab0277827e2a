"""What was measured on devices: one append-only file of JSON lines per target and number of threads.

Several profilers may share a folder. Of several measurements of a primitive one counts (`counting`). Beside
primitives the file has what the device reaches at best, and what whole stages took (`targets.store.stage_times`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from tvmpipe.process import cache_folder
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.store import jsonl, stage_times
from tvmpipe.targets.store.stage_times import StageTime

FORMAT = 1
_SHIPPED = Path(__file__).parent / "profiles"
_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}  # as Linux names them -> folder of what was measured


@dataclass(frozen=True)
class Measurement:
    """Seconds of one call of a primitive.

    Attributes: `seconds` the median with warm caches, `low_s` and `high_s` its 95 % interval, `runs` how many timings
    it is of, each of one call or of several on end; `cold_s` the median with all but the first operand out of the
    caches, None where that was not measured; `busy` whether the device had other work meanwhile, so that it is an
    upper bound at best; `schedule` and `tvm` the versions of what made the code; `when` in UTC; `origin` the model
    that the primitive came from; `reference_s` what the loops of `reference_loops` took meanwhile, empty where none
    did.
    """

    work: Work
    seconds: float
    low_s: float
    high_s: float
    runs: int
    cold_s: float | None
    busy: bool
    schedule: str
    tvm: str
    when: str
    origin: str
    reference_s: tuple[float, ...] = ()

    @property
    def network_s(self) -> float:
        """Seconds of a call inside a network, where other primitives have used the caches since the last one.

        The cold time where there is one: its sum over a network's calls is within some percent of a run.
        """
        return self.seconds if self.cold_s is None else self.cold_s

    @property
    def key(self) -> str:
        """What it is valid for, besides the target: the primitive and the versions."""
        return identity(self.work.key, self.schedule, self.tvm)


@dataclass(frozen=True)
class DeviceFacts:
    """What a device reaches at best: fp32 FLOP/s of multiply-adds, bytes/s read from memory, what it says it is."""

    peak_flops: float
    memory_bandwidth_bps: float
    processor: str
    when: str


Row = Measurement | DeviceFacts | StageTime
"""A line of a target's file."""


class Processor(Protocol):
    """What code is compiled for: a `TargetDescription`, or a device of a bundle."""

    @property
    def identity(self) -> str:
        """What measurements are valid for, besides the number of threads (`TargetDescription.identity`)."""
        ...


def identity(primitive: str, schedule: str, tvm: str) -> str:
    """One string for a primitive compiled by certain versions."""
    return f"{primitive}.{schedule}.{tvm}"


def store_key(target: Processor, threads: int) -> str:
    """The name of a target's file: what its measurements are valid for."""
    return f"{target.identity}-{threads}"


def default_store() -> Path:
    """Where measurements are kept unless told otherwise."""
    return cache_folder() / "tvmpipe" / "profiles"


def shipped() -> list[Path]:
    """The folders of measurements that come with tvmpipe; those of a processor of this host's vendor last.

    A target is a class of processors: two with the same vectors differ in clock, caches and memory.
    """
    here = _VENDORS.get(_vendor(), "")
    return sorted((_SHIPPED / name for name in _VENDORS.values()), key=lambda folder: (folder.name == here, folder))


def _vendor() -> str:
    """This host's processor vendor as Linux names it, "" where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^vendor_id\s*:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


class ProfileStore:
    """A folder of measurements; reading needs no permission to write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, target: Processor, threads: int) -> Path:
        """The file of a target."""
        return self.folder / f"{store_key(target, threads)}.jsonl"

    def targets(self) -> list[str]:
        """The `store_key` of each target that there is a file of."""
        return sorted(path.stem for path in self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    def add(self, target: Processor, threads: int, row: Row) -> None:
        """Append a row; it is on disk when this returns. Raises InputError where that is not possible."""
        self.add_all(target, threads, [row])

    def add_all(self, target: Processor, threads: int, rows: Iterable[Row]) -> None:
        """Append several, all of them or, after a crash, the first ones."""
        jsonl.append(self.path(target, threads), map(_to_json, rows))

    def read(self, target: Processor, threads: int) -> list[Measurement]:
        """Measurements of a target, oldest first. Lines that are damaged or of another format are skipped."""
        return measurements(*self.content(target, threads))

    def content(self, target: Processor, threads: int) -> tuple[bytes, Path]:
        """The lines of a target's file as they are now, and its path; two that are equal have equal measurements."""
        path = self.path(target, threads)
        return jsonl.load(path), path

    def device(self, target: Processor, threads: int) -> DeviceFacts | None:
        """The last facts about a device of the target."""
        found = [row for row in self._rows(target, threads) if isinstance(row, DeviceFacts)]
        return found[-1] if found else None

    def stages(self, target: Processor, threads: int) -> list[StageTime]:
        """What stages took on the target, oldest first."""
        return [row for row in self._rows(target, threads) if isinstance(row, StageTime)]

    def _rows(self, target: Processor, threads: int) -> Sequence[Row]:
        return _parsed(*self.content(target, threads))


def measurements(text: bytes, path: Path) -> list[Measurement]:
    """Those of a file that a store has read (`ProfileStore.content`), oldest first."""
    return [row for row in _parsed(text, path) if isinstance(row, Measurement)]


@functools.lru_cache(maxsize=16)
def _parsed(text: bytes, path: Path) -> tuple[Row, ...]:
    """The rows of a file; kept, for files that come with tvmpipe have hundreds and are read for every plan."""
    return tuple(jsonl.parsed(text, _from_json, path))


def counting(rows: Iterable[Measurement]) -> dict[str, Measurement]:
    """What counts for each `Measurement.key`: the fastest warm time and the fastest cold time, be it of two rows.

    Whatever disturbs a device makes it slower, and not all of it is noticed: neighbours on a shared host take caches
    and memory bandwidth for minutes. So a disturbed measurement that is faster than an undisturbed one shows that
    neither was quiet, and is nearer to the truth. What counts is disturbed where all measurements are. A cold time is
    no less than the warm one.
    """
    found: dict[str, list[Measurement]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    return {key: _fastest(same) for key, same in found.items()}


def _fastest(rows: Sequence[Measurement]) -> Measurement:
    best = min(rows, key=lambda row: (row.seconds, row.busy))
    cold = [row.cold_s for row in rows if row.cold_s is not None]
    cold_s = max(min(cold), best.seconds) if cold else None
    return replace(best, cold_s=cold_s, busy=all(row.busy for row in rows))


@functools.cache
def tvm_version() -> str:
    """The TVM that compiles here."""
    return version("apache-tvm")


_WORK = {field.name: field.default for field in fields(Work)}


def _to_json(row: Row) -> dict[str, Any]:
    if isinstance(row, StageTime):
        return stage_times.to_json(row)
    if isinstance(row, DeviceFacts):
        return {"v": FORMAT, "device": asdict(row)}
    values = asdict(row)
    # What is as usual is left out; times to four digits, which is more than they are worth.
    work = {name: _short(value) for name, value in values.pop("work").items() if value != _WORK[name]}
    loops = values.pop("reference_s")
    rounded = {name: _rounded(value) for name, value in values.items()}
    if loops:
        rounded["reference_s"] = [_rounded(value) for value in loops]
    return {"v": FORMAT, "work": work, **rounded}


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _short(value: Any) -> Any:
    """Whole numbers without a fraction."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _from_json(values: dict[str, Any]) -> Row | None:
    version = values.pop("v")
    if version == stage_times.FORMAT:
        return stage_times.from_json(values)
    if version != FORMAT:
        return None
    if "device" in values:
        return DeviceFacts(**values["device"])
    work: dict[str, Any] = {}
    for name, value in values.pop("work").items():
        work[name] = tuple(value) if isinstance(value, list) else value
    values["reference_s"] = tuple(map(float, values.get("reference_s", ())))
    row = Measurement(work=Work(**work), **values)
    if not (row.seconds > 0 and re.fullmatch(r"[0-9a-f]{32}", row.work.key)):
        raise ValueError("no measurement")
    return row
