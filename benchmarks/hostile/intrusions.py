"""Attempts that strangers make at what really runs, and the line that each becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.hostile.row import Intrusion
from tvmpipe.text import clean

SceneT = TypeVar("SceneT")
_SHOWN = 300  # characters of what happened


class Fault(Exception):
    """Something else happened than should."""


@dataclass(frozen=True)
class Plot(Generic[SceneT]):
    """What a stranger means to try. `act` does so, and returns what happened; it raises when that is not `expected`,
    or when whoever may come in is kept out as well, which would prove nothing."""

    door: str
    tried: str
    expected: str
    act: Callable[[SceneT], str]


def carry_out(
    plots: Sequence[Plot[SceneT]], impossible: str, scene: Callable[[], AbstractContextManager[SceneT]]
) -> Iterator[Intrusion]:
    """Try each in one scene. `impossible` says why that cannot be done here; empty where it can."""
    if impossible:
        for plot in plots:
            yield Intrusion(plot.door, plot.tried, plot.expected, impossible, "not tried")
        return
    with scene() as made:
        for plot in plots:
            yield _carry_out(plot, made)


def _carry_out(plot: Plot[SceneT], scene: SceneT) -> Intrusion:
    try:
        happened, result = plot.act(scene), "ok"
    except Fault as fault:
        happened, result = str(fault), "FAULT"
    except Exception as error:  # noqa: BLE001  # an attempt that came to nothing shows nothing
        happened, result = f"{type(error).__name__}: {error}", "FAULT"
    return Intrusion(plot.door, plot.tried, plot.expected, clean(happened)[:_SHOWN], result)


def must(holds: object, otherwise: str) -> None:
    """Raise Fault, saying `otherwise`, unless something holds."""
    if not holds:
        raise Fault(otherwise)
