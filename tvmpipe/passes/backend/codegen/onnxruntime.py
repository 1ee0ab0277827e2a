"""Stages as ONNX models, for what TVM does not compile."""

from __future__ import annotations

from pathlib import Path

from tvmpipe.passes.backend.codegen import StageCode
from tvmpipe.passes.backend.onnx_stage import OnnxStage
from tvmpipe.targets.description.target import TargetDescription

SUFFIX = ".onnx"


def compile_stage(module: OnnxStage, target: TargetDescription, threads: int, records: Path | None = None) -> StageCode:
    """The model itself: it is the same for every target, and schedules have no part in it."""
    return StageCode(module.model, module.working_bytes)
