"""Progress on stderr, so that stdout stays data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")

stderr = Console(stderr=True, highlight=False)


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


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        transient=True,
    )
