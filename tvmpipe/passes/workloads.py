"""The primitives of a model that are worth measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.driver import front
from tvmpipe.passes.graph.primitive_features import function_of, works_of
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.store.profile_store import identity, tvm_version
from tvmpipe.targets.store.schedule_version import SCHEDULE_VERSION


@dataclass(frozen=True)
class Subject:
    """A primitive to measure: what it does, its unscheduled TIR function, and the model it was first seen in."""

    work: Work
    function: Any
    origin: str

    @property
    def identity(self) -> str:
        """The key of its measurements."""
        return identity(self.work.key, SCHEDULE_VERSION, tvm_version())

    @property
    def title(self) -> str:
        """What a person knows it by."""
        return "+".join(self.work.operators)


def subjects_of(
    source: Any,
    origin: str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> list[Subject]:
    """Each distinct primitive of a model (a path or an `onnx.ModelProto`) that runs as compiled code, in order.

    Raises ModelError.
    """
    fused = front(source, shapes, dims)
    subjects: dict[str, Subject] = {}
    for primitive, work in zip(fused.graph.primitives, works_of(fused.graph, fused.module), strict=True):
        function = function_of(primitive, fused.module)
        if function is not None and not work.view and not primitive.constant:
            subjects.setdefault(work.key, Subject(work, function, origin))
    return list(subjects.values())


def distinct(subjects: Sequence[Subject]) -> list[Subject]:
    """The first subject of each key."""
    return list({subject.work.key: subject for subject in reversed(subjects)}.values())[::-1]
