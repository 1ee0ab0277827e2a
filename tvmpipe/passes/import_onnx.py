"""ONNX -> Relax: read, check, fix dimensions, fold constants and shapes, import."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
from google.protobuf.message import DecodeError
from onnx import helper

from tvmpipe.errors import InputError, ModelError, UnsupportedModelError
from tvmpipe.passes.base import CompileState, Signature
from tvmpipe.passes.importable import DTYPES, check_operators, label
from tvmpipe.passes.weightless import on_structure
from tvmpipe.tensors import TensorSpec
from tvmpipe.text import clean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportOnnx:
    """Read `state.source` and fill in `module` and `signature`."""

    name: str = "import"

    def apply(self, state: CompileState) -> CompileState:
        model, name, digest = _read(state.source)
        inputs = _fix_inputs(model, state.options.shapes)
        simplified, notes = _simplify(model)
        module = _to_relax(simplified)
        outputs = _output_specs(module, model.graph)
        signature = Signature(name, digest, inputs, outputs)
        kept = [value.name for value in simplified.graph.input]
        module["main"] = module["main"].with_attr("tvmpipe.inputs", kept)
        return replace(state, module=module, signature=signature, notes=state.notes + notes)


def _read(source: Any) -> tuple[onnx.ModelProto, str, str]:
    """The model with its weights, its name, and the sha256 of all its bytes."""
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        digest = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
        return copy, clean(source.graph.name) or "model", digest
    path = Path(source)
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a complete ONNX file: {error}") from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} is not a complete ONNX file: it holds no graph with nodes and outputs")
    digest = _hash_files(path, model)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        on_structure(model, _checked, always=True)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is not a valid ONNX model: {_first_line(error)}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"the external weights of {path} cannot be read: {_first_line(error)}") from None
    return model, clean(path.stem), digest


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model)
    return model


def _hash_files(path: Path, model: onnx.ModelProto) -> str:
    """sha256 over the file and each external data file it names, in order of their names."""
    locations = {
        entry.value
        for tensor in onnx.external_data_helper._get_all_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    digest = hashlib.sha256()
    for file in [path, *(path.parent / location for location in sorted(locations))]:
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except OSError:
            raise ModelError(f"{path} keeps weights in {file.name}, which is not beside it") from None
    return digest.hexdigest()


def _fix_inputs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    """Write the given shapes into the model; every input must then be static. Returns the inputs."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in initializers]
    names = [value.name for value in values]
    for name in shapes:
        if name not in names:
            raise InputError(f"--shape names {name!r}, which is no input of the model; allowed: {', '.join(names)}")
    specs = []
    for value in values:
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value") or "untyped"
            raise UnsupportedModelError(f"input {value.name!r} is of kind {kind}; only tensors can be compiled")
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        given = shapes.get(value.name)
        if given is not None:
            mismatch = len(given) != len(dims) or any(d > 0 and d != g for d, g in zip(dims, given, strict=False))
            if (tensor.HasField("shape") and mismatch) or any(g < 1 for g in given):
                raise InputError(
                    f"--shape {value.name}={','.join(map(str, given))} does not fit the model's "
                    f"[{_show_dims(tensor)}]; open dimensions take any number from 1"
                )
            dims = list(given)
            value.CopyFrom(helper.make_tensor_value_info(value.name, tensor.elem_type, dims))
        elif not tensor.HasField("shape") or any(dim < 0 for dim in dims):
            raise InputError(
                f"input {value.name!r} has open dimensions [{_show_dims(tensor)}]; fix them, for example with "
                f"--shape {value.name}={','.join(str(d) if d > 0 else '1' for d in dims) or '1'}"
            )
        dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        if tensor.elem_type != onnx.TensorProto.STRING:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        if dtype not in DTYPES:
            allowed = ", ".join(sorted(DTYPES))
            raise UnsupportedModelError(f"input {value.name!r} has elements of type {dtype}; allowed: {allowed}")
        specs.append(TensorSpec(name=value.name, shape=tuple(dims), dtype=dtype))
    return tuple(specs)


def _show_dims(tensor: Any) -> str:
    return ",".join(
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
    )


def _simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Fold constants and shape arithmetic; exporters leave both where TVM's importer wants numbers."""
    import onnxslim

    _binary_sums(model)

    def slim(structure: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(structure)
        simplified: onnx.ModelProto = onnxslim.slim(copy)
        return simplified

    try:
        with _quiet():
            slimmed = on_structure(model, slim)
    except Exception as error:  # noqa: BLE001  # an optimiser may fail on any valid model; it is not needed then
        note = f"onnxslim could not simplify the model and was skipped: {_first_line(error)}"
        logger.warning(note)
        return model, (note,)
    # It may have dropped what it thinks unused; a changed signature is not acceptable.
    if [value.name for value in slimmed.graph.output] != [value.name for value in model.graph.output]:
        return model, ("onnxslim changed the outputs of the model and was skipped",)
    return slimmed, ()


def _binary_sums(model: onnx.ModelProto) -> None:
    """Sum of several inputs -> chain of Add, which TVM fuses; its importer stacks and reduces a Sum."""
    # Copies: clearing the field below would clear the nodes themselves.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    if not any(_is_sum(node) for node in nodes):
        return
    del model.graph.node[:]
    for node in nodes:
        if not _is_sum(node):
            model.graph.node.append(node)
            continue
        left = node.input[0]
        for position, right in enumerate(node.input[1:], start=1):
            last = position == len(node.input) - 1
            result = node.output[0] if last else f"{node.output[0]}/sum{position}"
            name = f"{node.name}/add{position}"
            model.graph.node.append(helper.make_node("Add", [left, right], [result], name=name))
            left = result


def _is_sum(node: onnx.NodeProto) -> bool:
    return node.op_type == "Sum" and node.domain in ("", "ai.onnx") and len(node.input) > 1


def _to_relax(model: onnx.ModelProto) -> Any:
    """Import, naming the node that TVM cannot take."""
    import tvm
    from tvm.relax.frontend.onnx import onnx_frontend

    check_operators(model, frozenset((*onnx_frontend._get_convert_map(), "Constant", "If")))

    class Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
        """TVM's importer, remembering which node it is at."""

        current_node: str = ""

        def _parse_value_proto(self, value_proto: Any) -> Any:
            if isinstance(value_proto, onnx.NodeProto):
                self.current_node = f"{label(value_proto)} ({value_proto.op_type})"
            return super()._parse_value_proto(value_proto)

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    importer = Importer(shape_dict={}, dtype_dict="float32", keep_params_in_input=False)
    try:
        with _quiet():
            module = importer.from_onnx(model.graph, opset)
            return tvm.relax.transform.Normalize()(module)
    except Exception as error:  # TVM raises every kind of exception from its converters
        where = f"node {importer.current_node}" if importer.current_node else "the model"
        raise UnsupportedModelError(f"TVM cannot import {where}: {_first_line(error)}") from error


def _output_specs(module: Any, graph: onnx.GraphProto) -> tuple[TensorSpec, ...]:
    """Names, shapes and dtypes of what `main` returns, which must be what the file says of its outputs."""
    from tvm import relax

    returned = module["main"].ret_ty
    types = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    if len(types) != len(graph.output):
        raise UnsupportedModelError(f"TVM imports {len(types)} outputs where the model has {len(graph.output)}")
    specs = []
    for ty, output in zip(types, graph.output, strict=True):
        spec = tensor_spec(ty, output.name)
        declared = output.type.tensor_type
        dims = [dim.dim_value for dim in declared.shape.dim]
        same = len(dims) == len(spec.shape) and all(d < 1 or d == s for d, s in zip(dims, spec.shape, strict=True))
        if declared.HasField("shape") and not same:
            raise UnsupportedModelError(
                f"TVM computes output {output.name!r} with shape {list(spec.shape)}, the model declares {dims}"
            )
        specs.append(spec)
    return tuple(specs)


def tensor_spec(ty: Any, name: str) -> TensorSpec:
    """The spec of a Relax tensor type. Raises UnsupportedModelError unless its shape is static."""
    from tvm import relax, tirx

    if not isinstance(ty, relax.TensorType):
        kind = "a shape" if isinstance(ty, relax.ShapeType) else "a tuple or an object"
        raise UnsupportedModelError(f"{name} is {kind} and not a tensor; it cannot be compiled")
    if not isinstance(ty.shape, relax.ShapeExpr) or not all(isinstance(d, tirx.IntImm) for d in ty.shape.values):
        raise UnsupportedModelError(f"the shape of {name} depends on the data; only static shapes can be compiled")
    if str(ty.dtype) not in DTYPES:
        raise UnsupportedModelError(f"{name} has elements of type {ty.dtype}; allowed: {', '.join(sorted(DTYPES))}")
    return TensorSpec(name=name, shape=tuple(int(d) for d in ty.shape.values), dtype=str(ty.dtype))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The importer prints to stdout, which belongs to our caller's data."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
