"""Progress on stderr, so that stdout stays data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tvmpipe.console import PlainConsole
from tvmpipe.runtime.head.delivery.progress import DeviceProgress
from tvmpipe.units import format_duration, format_size

Item = TypeVar("Item")

_LINE_S = 20.0  # between lines where there is no terminal

stderr = PlainConsole(stderr=True)


def warn(sentence: str) -> None:
    """A warning on stderr, on one line, in no markup."""
    stderr.print(f"tvmpipe: warning: {sentence}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def pass_progress(title: str) -> Iterator[Callable[[str, int, int, float], None]]:
    """A callback for `run_passes`: a live bar on a terminal, a line per pass elsewhere."""
    if not stderr.is_terminal:
        yield lambda name, number, total, seconds: stderr.print(
            f"[{number}/{total}] {seconds:6.1f} s {title}: {name}", soft_wrap=True
        )
        return
    with _bar() as bar:
        task = bar.add_task(title, total=None)

        def report(name: str, number: int, total: int, _: float) -> None:
            bar.update(task, description=f"{title}: {name}", completed=number, total=total)

        yield report


def count_progress(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Pass `items` on while counting them on stderr."""
    if not stderr.is_terminal:
        yield from items
        stderr.print(f"{title}: {total} done")
        return
    with _bar() as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            bar.advance(task)
            yield item


@contextlib.contextmanager
def work_progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A callback for what is being done, how much is done and how much there is: a bar, or now and then a line."""
    if not stderr.is_terminal:
        last = started = time.monotonic()

        def say(name: str, number: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _LINE_S and number:
                last = now
                left = (now - started) / number * (total - number)
                stderr.print(f"[{number}/{total}] {title}: {name}; about {format_duration(left)} left")

        yield say
        return
    with _bar(TimeRemainingColumn()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda name, number, total: bar.update(
            task, description=f"{title}: {name}", completed=number, total=total
        )


@contextlib.contextmanager
def delivery_progress() -> Iterator[Callable[[Sequence[DeviceProgress]], None]]:
    """A callback for how far devices have got with their files: a bar for each, or now and then a line.

    It may be called from another thread. Nothing is shown of what is over at once.
    """
    if not stderr.is_terminal:
        last = time.monotonic()

        def say(devices: Sequence[DeviceProgress]) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_S:
                last = time.monotonic()
                for one in devices:
                    stderr.print(describe_delivery(one), soft_wrap=True)

        yield say
        return
    with contextlib.ExitStack() as stack:
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=stderr,
            transient=True,
        )
        tasks: dict[str, TaskID] = {}

        def show(devices: Sequence[DeviceProgress]) -> None:
            if all(one.received_bytes == one.wanted_bytes for one in devices):
                stack.close()
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                return
            if not tasks:
                stack.enter_context(bar)
            for one in devices:
                if one.device not in tasks:
                    tasks[one.device] = bar.add_task(f"files for {one.device}", total=one.wanted_bytes)
                bar.update(tasks[one.device], completed=one.received_bytes)

        yield show


def describe_delivery(one: DeviceProgress) -> str:
    """How far a device has got, in a line."""
    far = f"{one.device}: {format_size(one.received_bytes)} of {format_size(one.wanted_bytes)} of its files"
    if one.left_s is None:
        return far
    return f"{far}, {format_size(round(one.rate_bps))}/s, about {format_duration(one.left_s)} left"


def _bar(*more: ProgressColumn) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        console=stderr,
        transient=True,
    )
