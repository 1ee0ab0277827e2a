"""What is measured on devices: code that can be made for any target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.target import TargetDescription


class Workload(Protocol):
    """A primitive to measure. It is pickled: libraries are made in worker processes."""

    @property
    def work(self) -> Work:
        """What it does."""
        ...

    @property
    def key(self) -> str:
        """`Measurement.key` of its measurements."""
        ...

    @property
    def title(self) -> str:
        """What a person knows it by."""
        ...

    @property
    def origin(self) -> str:
        """The model that it was first seen in."""
        ...

    @property
    def tensors(self) -> Sequence[tuple[tuple[int, ...], str]]:
        """Shapes and types of what it is called with, results included."""
        ...

    def compile(self, target: TargetDescription, threads: int) -> bytes:
        """A shared library whose function `main` it is, for so many threads of a target."""
        ...
