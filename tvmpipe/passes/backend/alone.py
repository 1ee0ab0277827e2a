"""Which primitives TVM cannot compile: each of a stage that could not be compiled is tried alone."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from tvmpipe.errors import raised_by_tvm, reason_of
from tvmpipe.passes.backend.lower import compile_json
from tvmpipe.passes.backend.partition import Stage, emit
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.graph.stages import shape_of
from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.description.target import TargetDescription

logger = logging.getLogger(__name__)

_TIMEOUT_S = 600


def refused_nodes(graph: PrimitiveGraph, module: Any, stage: Stage, device: Device) -> dict[str, str]:
    """Labels of the ONNX nodes in a stage whose primitive TVM, or the code generator, refuses for a device -> why.

    A primitive is refused where TVM raises for it, or the code generator NotImplementedError, or the process ends in
    which it is compiled. Other exceptions are faults here, which nothing hides: such a primitive is none of these. Nor
    is one that no ONNX node asked for.
    """
    import tvm
    from tvm.support.popen_pool import PopenPoolExecutor, StatusKind
    from tvm_ffi import StructuralKey

    target = device.target
    distinct: dict[Any, tuple[Any, list[int]]] = {}
    for index in (*stage.shape.primitives, *stage.shape.repeated):
        alone = emit(graph, module, "alone", shape_of(graph, (device.name,), "", (index,))).module
        distinct.setdefault(StructuralKey(alone), (alone, []))[1].append(index)
    pool = PopenPoolExecutor(max_workers=min(len(distinct), os.cpu_count() or 1), timeout=_TIMEOUT_S)
    work = [(tvm.ir.save_json(alone), target, device.threads, None) for alone, _ in distinct.values()]
    found: dict[str, str] = {}
    for (_, places), result in zip(distinct.values(), pool.map_with_error_catching(_refusal, work), strict=True):
        refused = result.value if result.status == StatusKind.COMPLETE else reason_of(result.value)
        if refused is None:
            continue
        for primitive in (graph.primitives[index] for index in places if graph.primitives[index].onnx_nodes):
            nodes = ", ".join(map(repr, primitive.onnx_nodes))
            why = f"TVM cannot compile node {nodes} ({', '.join(primitive.operators)}) for {target.name}: {refused}"
            logger.warning("%s", why)
            found.update(dict.fromkeys(primitive.onnx_nodes, why))
    return found


def _refusal(job: tuple[str, TargetDescription, int, Path | None]) -> str | None:
    """Why a stage is refused; None for one that is compiled, or that fails for another reason."""
    try:
        compile_json(job)
    except Exception as error:  # noqa: BLE001  # which kind it is decides
        return reason_of(error) if raised_by_tvm(error) or isinstance(error, NotImplementedError) else None
    return None
