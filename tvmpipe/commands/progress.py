"""Progress on stderr, so that stdout stays data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tvmpipe.console import PlainConsole
from tvmpipe.units import format_duration

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
