"""Models with 8-bit integers, as onnxruntime.quantization makes them of float models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tvmpipe.passes.frontend.inputs.fix_dimensions import inputs_of
from tvmpipe.tensors import TensorSpec, random_tensor

FORMS = ("qdq", "qoperator", "dynamic")
"""Pairs of QuantizeLinear and DequantizeLinear around float operators, QLinear operators, ranges found at run time."""
_PER_CHANNEL = 13  # the opset from which scales may be of channels
_SAMPLES = 2  # that ranges are taken from


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, model: onnx.ModelProto) -> None:
        generator = np.random.default_rng(0)
        inputs = [
            TensorSpec(
                name=one.name,
                shape=tuple(axis.dim_value for axis in one.type.tensor_type.shape.dim),
                dtype=onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type).name,
            )
            for one in inputs_of(model)
        ]
        samples = [{one.name: random_tensor(one, generator) for one in inputs} for _ in range(_SAMPLES)]
        self._samples: Iterator[dict[str, Any]] = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._samples, None)


def quantised(model: Path, form: str, target: Path) -> Path:
    """Write the model in `form`, weights per channel where ranges are static; returns `target`."""
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
        newer, prepared = Path(folder) / "newer.onnx", Path(folder) / "prepared.onnx"
        onnx.save(_newer(onnx.load(str(model))), str(newer))
        quant_pre_process(str(newer), str(prepared), skip_symbolic_shape=True)
        if form == "dynamic":
            quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QInt8)
        else:
            quantize_static(
                str(prepared),
                str(target),
                _Samples(onnx.load(str(prepared))),
                quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    return target


def _newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an opset that has scales for each channel."""
    version = next(one.version for one in model.opset_import if not one.domain)
    return model if version >= _PER_CHANNEL else onnx.version_converter.convert_version(model, _PER_CHANNEL)
