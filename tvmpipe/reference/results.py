"""What ONNX Runtime answers, which every pipeline's results are compared with.

The reference is ONNX Runtime with its optimisations off; with them on, it says how much noise the model amplifies.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from tvmpipe.equality import Comparison, Expected, compare, largest_difference
from tvmpipe.reference.float64 import float64_results, graphs_of
from tvmpipe.reference.roundings import rounds, with_shifts
from tvmpipe.reference.unsigned_weights import has_signed_weights, with_unsigned_weights

logger = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SHIFTS = 3  # samples of what rounding elsewhere does
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


class Reference:
    """A model in ONNX Runtime on the CPU, without optimisations; with them too once a comparison asks for it."""

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        self._source = model
        self._threads = threads
        self._session = self._open(optimised=False)

    @functools.cached_property
    def quantised(self) -> bool:
        """Whether the model computes with quantised integers."""
        return self._traits[1]

    def run(self, sample: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return _run(self._session, sample)

    def expect(self, sample: Arrays, optimised: Arrays | None = None) -> Expected:
        """What results of a sample are compared with.

        `optimised` are ONNX Runtime's own with all its optimisations, where they are known already.
        """
        half, _, steps = self._traits
        wanted = self.run(sample)
        quick = _run(self._optimised, sample) if optimised is None else optimised
        return Expected(
            outputs=wanted,
            floor={name: floor for name, array in wanted.items() if (floor := _floor(array, quick.get(name)))},
            other=self._answer_to_others(sample),
            half=half,
            steps=steps,
            exact=functools.cache(lambda: self._exact(sample)),
            rounding=functools.cache(lambda: self._rounding(sample, wanted)) if self.quantised else None,
        )

    def compare(self, results: Arrays, sample: Arrays) -> Comparison:
        """Whether results of a sample are right; those of quantised models may be one step apart."""
        return compare(results, self.expect(sample), steps=int(self.quantised))

    @functools.cached_property
    def _given(self) -> str | bytes:
        """What ONNX Runtime is given: the model as it is, unless products of its integers would saturate."""
        if has_signed_weights(self._model(weights=False)):
            return with_unsigned_weights(self._model()).SerializeToString()
        return str(self._source) if isinstance(self._source, Path) else self._source

    @functools.cached_property
    def _optimised(self) -> Any:
        return self._open(optimised=True)

    @functools.cached_property
    def _traits(self) -> tuple[bool, bool, dict[str, float]]:
        """Whether the model computes in half precision, whether in integers, and the steps of dequantised outputs."""
        model = self._model(weights=False)
        operators = {node.op_type for graph in graphs_of(model) for node in graph.node}
        quantised = any(name in _QUANTISED or name.startswith("QLinear") for name in operators)
        return computes_in_half(model), quantised, dict(_output_steps(model)) if quantised else {}

    def _model(self, weights: bool = True) -> onnx.ModelProto:
        if isinstance(self._source, bytes):
            return onnx.load_model_from_string(self._source)
        return onnx.load(str(self._source), load_external_data=weights)

    def _open(self, optimised: bool) -> Any:
        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.x64quantprecision", "1")  # where optimisations make such products
        return onnxruntime.InferenceSession(self._given, options, providers=["CPUExecutionProvider"])

    def _fed(self, sample: Arrays) -> dict[str, NDArray[Any]]:
        wanted = {value.name for value in self._session.get_inputs()}
        return {name: array for name, array in sample.items() if name in wanted}

    def _exact(self, sample: Arrays) -> Arrays | None:
        """Outputs in float64, where they can be computed: not of models that take or return sequences."""
        if not all(
            value.type.startswith("tensor") for value in (*self._session.get_inputs(), *self._session.get_outputs())
        ):
            return None
        try:
            model = self._model()
        except Exception as error:  # noqa: BLE001  # ONNX Runtime reads files that onnx refuses, such as linked weights
            logger.info("no float64 reference, for onnx cannot read the model: %s", error)
            return None
        return float64_results(model, self._fed(sample))

    def _rounding(self, sample: Arrays, wanted: Arrays) -> dict[str, float]:
        """How far outputs go when what the model rounds lies a little elsewhere; {} where that cannot be told."""
        model = self._model()
        if not rounds(model):
            return {}
        shifted = Reference(with_shifts(model).SerializeToString(), self._threads)
        moved = [shifted.run(sample) for _ in range(_SHIFTS)]
        return {name: max(_floor(array, one.get(name)) for one in moved) for name, array in wanted.items()}

    def _answer_to_others(self, sample: Arrays) -> Arrays | None:
        """What the model answers to other inputs of the same kind; None where there are none, or it refuses them."""
        others = other_inputs(sample)
        if others is None:
            return None
        try:
            return self.run(others)
        except Exception as error:  # noqa: BLE001  # an index out of range, say: nothing is known of the inputs' meaning
            logger.debug("the reference does not take other inputs: %s", error)
            return None


def other_inputs(sample: Arrays) -> dict[str, NDArray[Any]] | None:
    """Seeded inputs in the range of the sample's, all of them different from it; None where none can be changed.

    Integers that are all the same stay, unless nothing else can change: they are masks or lengths most often.
    """
    generator = np.random.default_rng(len(sample))
    changed = {name: _another(array, generator) for name, array in sample.items() if array.size}
    if all(np.array_equal(array, sample[name], equal_nan=array.dtype.kind == "f") for name, array in changed.items()):
        changed = {name: _next_integers(array) for name, array in changed.items() if array.dtype.kind in "iu"}
    return {**sample, **changed} if changed else None


def computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether any tensor that the file declares, or casts to, is float16 or bfloat16."""
    for graph in graphs_of(model):
        values = (*graph.input, *graph.output, *graph.value_info)
        if any(tensor.data_type in _HALF for tensor in graph.initializer):
            return True
        if any(value.type.tensor_type.elem_type in _HALF for value in values):
            return True
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i in _HALF:
                    return True
                if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _HALF:
                    return True
    return False


def _run(session: Any, sample: Arrays) -> dict[str, NDArray[Any]]:
    """Outputs by name; elements of sequences, and what optionals hold, are ends called `NAME/0`, `NAME/1`, ..."""
    feed: dict[str, Any] = {}
    for value in session.get_inputs():
        if value.type.startswith("tensor"):
            feed.update({value.name: sample[value.name]} if value.name in sample else {})
            continue
        elements = list(_elements(sample, value.name))
        feed[value.name] = elements if "seq" in value.type else elements[0] if elements else None
    found: dict[str, NDArray[Any]] = {}
    for output, result in zip(session.get_outputs(), session.run(None, feed), strict=True):
        if output.type.startswith("tensor"):
            found[output.name] = result
            continue
        parts = result if isinstance(result, list) else [] if result is None else [result]
        found.update((f"{output.name}/{number}", part) for number, part in enumerate(parts))
    return found


def _elements(sample: Arrays, name: str) -> Iterator[NDArray[Any]]:
    number = 0
    while (element := f"{name}/{number}") in sample:
        yield sample[element]
        number += 1


def _floor(array: NDArray[Any], optimised: NDArray[Any] | None) -> float:
    """How far optimisations move an output; 0 where they change more than numbers."""
    if optimised is None or optimised.shape != array.shape or not np.issubdtype(array.dtype, np.floating):
        return 0.0
    difference = largest_difference(optimised, array)
    return difference if np.isfinite(difference) else 0.0


def _output_steps(model: onnx.ModelProto) -> Iterator[tuple[str, float]]:
    """Outputs that a DequantizeLinear with one known scale makes, and that scale."""
    here = onnx.TensorProto.DEFAULT  # and not in a file of its own
    known = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_location == here}
    known |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    }
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in outputs and node.input[1] in known:
            yield node.output[0], float(np.max(np.abs(numpy_helper.to_array(known[node.input[1]]))))


def _another(array: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return generator.integers(0, 2, array.shape).astype(np.bool_)
    if np.issubdtype(array.dtype, np.integer):
        return generator.integers(array.min(), array.max(), array.shape, dtype=array.dtype, endpoint=True)
    finite = array[np.isfinite(array)].astype(np.float64)
    mean, spread = (float(finite.mean()), float(finite.std())) if finite.size else (0.0, 1.0)
    with np.errstate(over="ignore"):
        return (mean + (spread or abs(mean) or 1.0) * generator.standard_normal(array.shape)).astype(array.dtype)


def _next_integers(array: NDArray[Any]) -> NDArray[Any]:
    """The number below, which most probably is a valid index too; above zero the number above."""
    return np.where(array > 0, array - 1, array + 1).astype(array.dtype)
