"""A code generator and its runner in one small file: stages of elementwise products and ReLUs as lines of numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.manifest import StageEntry
from tvmpipe.passes.backend.codegen import StageCode
from tvmpipe.targets.description.target import TargetDescription

SUFFIX = ".py"


def compile_stage(module: Any, target: TargetDescription, threads: int, records: Path | None = None) -> StageCode:
    """The one primitive of a stage, whose name says which operators it fuses."""
    (primitive,) = (gvar.name_hint for gvar in module.get_global_vars() if gvar.name_hint != "main")
    if primitive != "fused_multiply_relu":
        raise ValueError(f"{primitive} is not multiply and relu")
    return StageCode(b"def main(x, w):\n    return [np.maximum(x * w, 0)]\n", 0)


class _Runner:
    def __init__(self, stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]]) -> None:
        scope: dict[str, Any] = {"np": np}
        exec(compile(library.read_text(), str(library), "exec"), scope)
        self._main, self._weights = scope["main"], [weights[name] for name in stage.weight_names]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        results: list[NDArray[Any]] = self._main(*inputs, *self._weights)
        return results


def load(stage: StageEntry, library: Path, weights: Mapping[str, NDArray[Any]], threads: int | None = None) -> _Runner:
    return _Runner(stage, library, weights)
