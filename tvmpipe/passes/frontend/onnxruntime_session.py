"""ONNX Runtime as the judge of what a model computes: on the CPU, quiet, its optimisations off unless asked for."""

from __future__ import annotations

from typing import Any


def session_of(model: bytes, *, optimised: bool = False, threads: int = 0) -> Any:
    """An `onnxruntime.InferenceSession`; raises what ONNX Runtime raises for a model that it does not take.

    With `threads` 0 it runs on as many as ONNX Runtime thinks best.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")  # sums of 8-bit products that do not saturate
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
