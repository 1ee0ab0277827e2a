"""Attempts in a process that is given up on when it hangs, and limits on what one may take."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hostile.row import Options, Row
from tvmpipe.errors import TvmpipeError
from tvmpipe.text import clean

LONGEST_S = 10.0
MOST_MEMORY_BYTES = 256 << 20  # more than the process had before
_ADDRESSES_BYTES = 2 << 30  # more than that the kernel refuses
_FILE_BYTES = 256 << 20  # and larger files
_LONGEST_SENTENCE = 1000


@dataclass(frozen=True)
class Attempt:
    """What `act` does is looked at, and what it raises; it may write `most_bytes`."""

    act: Callable[[], object]
    most_bytes: int


Prepare = Callable[[int], Attempt]
"""Makes ready for the mutation of this number."""


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to: `kind` "accepted", "refused" or "fault"."""

    number: int
    kind: str
    message: str
    seconds: float = 0.0
    written_bytes: int = 0
    memory_bytes: int = 0


def try_all(door: str, prepare: Prepare, options: Options) -> Row:
    """All mutations of one kind as a row."""
    outcomes = list(_outcomes(prepare, range(options.first, options.first + options.mutations)))
    kinds = Counter(one.kind for one in outcomes)
    return Row(
        door=door,
        tried=len(outcomes),
        accepted=kinds["accepted"],
        refused=kinds["refused"],
        faults=[f"mutation {one.number}: {one.message}" for one in outcomes if one.kind == "fault"],
        slowest_s=max((one.seconds for one in outcomes), default=0.0),
        most_written_bytes=max((one.written_bytes for one in outcomes), default=0),
        most_memory_bytes=max((one.memory_bytes for one in outcomes), default=0),
    )


def _outcomes(prepare: Prepare, numbers: range) -> Iterator[Outcome]:
    """In a forked process, and in another one after each that ended or hung."""
    context = multiprocessing.get_context("fork")
    left = list(numbers)
    while left:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(there, prepare, left), daemon=True)
        process.start()
        there.close()
        try:
            while left:
                if not here.poll(LONGEST_S + 5):
                    yield Outcome(left.pop(0), "fault", f"hung for {LONGEST_S + 5:g} s", LONGEST_S + 5)
                    break
                try:
                    yield here.recv()
                except EOFError:
                    process.join()
                    yield Outcome(left.pop(0), "fault", f"ended the process with exit code {process.exitcode}")
                    break
                left.pop(0)
        finally:
            process.kill()
            process.join()
            here.close()


def _work(results: multiprocessing.connection.Connection, prepare: Prepare, numbers: list[int]) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ADDRESSES_BYTES, used + _ADDRESSES_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    signal.signal(signal.SIGALRM, _too_long)
    for number in numbers:
        results.send(_one(prepare(number), number))


def _one(attempt: Attempt, number: int) -> Outcome:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, resident = _written(), _resident("VmRSS")
    started = time.perf_counter()
    kind, message = "accepted", ""
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        attempt.act()
    except TvmpipeError as error:
        message = str(error)
        kind = "refused" if _is_sentence(message) else "fault"
        message = message if kind == "refused" else f"no sentence: {message[:200]!r}"
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is a fault
        kind, message = "fault", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - started
    written, memory = _written() - before, _resident("VmHWM") - resident
    if kind != "fault" and written > attempt.most_bytes:
        kind, message = "fault", f"wrote {written} bytes, {attempt.most_bytes} were allowed"
    if kind != "fault" and memory > MOST_MEMORY_BYTES:
        kind, message = "fault", f"took {memory} bytes of memory"
    return Outcome(number, kind, message, seconds, written, memory)


def _is_sentence(message: str) -> bool:
    return bool(message) and clean(message) == message and len(message) <= _LONGEST_SENTENCE


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"took longer than {LONGEST_S:g} s")


def _written() -> int:
    """Bytes that this process has handed to the kernel to write."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["wchar"])


def _resident(what: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024
