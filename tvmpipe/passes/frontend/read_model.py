"""ONNX files: read with their external weights, put in order, checked."""

from __future__ import annotations

import hashlib
import heapq
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
import onnx.external_data_helper
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import helper

from tvmpipe.errors import ModelError, reason_of
from tvmpipe.files import require_file
from tvmpipe.passes.frontend.converters import converters
from tvmpipe.passes.frontend.converters.registry import MICROSOFT
from tvmpipe.passes.frontend.lower_versions import lower_versions
from tvmpipe.passes.frontend.onnx_values import STANDARD_DOMAINS, graphs_of, opset_of, reads
from tvmpipe.passes.frontend.unsupported import label
from tvmpipe.passes.frontend.weightless import on_structure
from tvmpipe.text import clean

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_ADDED_DOMAIN = "com.microsoft.added"
_DEPRECATED = "is deprecated in domain_version"
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def read_model(source: Any) -> tuple[onnx.ModelProto, str, str]:
    """A model with its weights, its name, and the sha256 of all its bytes.

    `source` is a path or an `onnx.ModelProto`. Nodes come in an order in which they can run, model-local functions
    inlined, and states no newer versions than it needs. Raises ModelError for what is no complete, valid model.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        name = source.graph.name or "model"
        digest = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
        where = f"model {name}"
    else:
        path = Path(source)
        model, digest, where = _load(path), "", str(path)
        name = path.stem
        files = _weight_files(path, model)
        digest = _hash_files(path, files)
        _load_weights(path, model, files)
    sort_nodes(model.graph, where)
    _import_domains(model)
    try:
        on_structure(model, _checked, always=True)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{where} is not a valid ONNX model: {reason_of(error)}") from None
    if model.functions:
        model = _inlined(model)
        sort_nodes(model.graph, where)
    lower_versions(model)
    return model, clean(name) or "model", digest


def _load(path: Path) -> onnx.ModelProto:
    require_file(path, "model file", ModelError)
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a complete ONNX file: {error}") from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} is not a complete ONNX file: it holds no graph with nodes and outputs")
    return model


def _weight_files(path: Path, model: onnx.ModelProto) -> dict[str, Path]:
    """Where the weights lie that the file only names: location -> file.

    A location stays in the model's folder; what is found there may be a symbolic link, as in the caches of model hubs.
    """
    files: dict[str, Path] = {}
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        location = _external(tensor).get("location", "")
        place = PurePosixPath(location.replace("\\", "/"))
        if not location or place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
            raise ModelError(f"{path} keeps weights in {location!r}; only files in the model's own folder are read")
        files[location] = path.parent / place
    for location, file in files.items():
        if not file.exists():
            broken = f", a symbolic link to {file.readlink()}, which does not exist" if file.is_symlink() else ""
            raise ModelError(f"{path} keeps weights in {location}, which is not beside it{broken}")
        if not file.is_file():
            raise ModelError(f"{path} keeps weights in {location}, which is not a file")
    return files


def _external(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _hash_files(path: Path, files: dict[str, Path]) -> str:
    """sha256 over the file and each external data file it names, in order of their names."""
    digest = hashlib.sha256()
    for file in [path, *(files[location] for location in sorted(files))]:
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise ModelError(f"the external weights of {path} cannot be read: {error.strerror}: {file.name}") from None
    return digest.hexdigest()


def _load_weights(path: Path, model: onnx.ModelProto, files: dict[str, Path]) -> None:
    """Put the bytes of external weights into the model."""
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        entries = _external(tensor)
        file = files[entries["location"]]
        size = _size_bytes(tensor)
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
            if offset < 0 or length != size:
                raise ValueError(f"{tensor.name!r} has {size} bytes, and {length} from {offset} on are named")
            with file.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(length)
            if len(data) != length:
                raise ValueError(f"{file.name} ends before {tensor.name!r} does")
        except (OSError, ValueError) as error:
            raise ModelError(f"the external weights of {path} cannot be read: {reason_of(error)}") from None
        tensor.raw_data = data
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _size_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's elements as a file holds them."""
    elements = math.prod(tensor.dims)
    try:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        bits = _PACKED_BITS.get(kind) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError):
        raise ModelError(f"weight {tensor.name!r} has elements of unknown type {tensor.data_type}") from None
    return (elements * bits + 7) // 8


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in model.graph.output:  # a shape may be missing there, whatever the checker says: all are inferred
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(_within_the_standard(model))
    except onnx.checker.ValidationError as error:
        if _DEPRECATED not in str(error):  # such nodes run all the same: GroupNormalization of opset 18 is one
            raise
    return model


def _import_domains(model: onnx.ModelProto) -> None:
    """Import ONNX Runtime's domain where nodes are of it: ONNX Runtime takes that for granted."""
    imported = {entry.domain for entry in model.opset_import}
    if MICROSOFT not in imported and any(node.domain == MICROSOFT for node in model.graph.node):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _within_the_standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for the checker: what ONNX Runtime adds to the standard's domain is in a domain of its own.

    Its optimiser writes LayerNormalization for any opset, and SimplifiedLayerNormalization, as if they were standard.
    """
    opset = opset_of(model)
    if not any(_added(node, opset) for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if _added(node, opset):
            node.domain = _ADDED_DOMAIN
    copy.opset_import.append(helper.make_opsetid(_ADDED_DOMAIN, 1))
    return copy


def _added(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node of the standard's domain is no operator of the standard, and we know it all the same."""
    return (
        node.domain in STANDARD_DOMAINS
        and ("", node.op_type) in converters()
        and not onnx.defs.has(node.op_type, opset, "")
    )


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with nodes in place of the calls of its own functions; as it is where the package cannot do that."""
    try:
        return on_structure(model, onnx.inliner.inline_local_functions, always=True)
    except Exception as error:  # noqa: BLE001  # it raises what C++ raised; the importer then names the call
        logger.debug("functions of the model are not inlined: %s", error)
        return model


def sort_nodes(graph: onnx.GraphProto, where: str) -> None:
    """Put nodes, and those of graphs inside them, after those whose results they read; else they stay in their order.

    Raises ModelError, naming a node, where there is no such order.
    """
    for node in graph.node:
        for inner in graphs_of(node):
            sort_nodes(inner, where)
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needs = [{maker[name] for name in reads(node) if name in maker} for node in graph.node]
    if all(before < number for number, made in enumerate(needs) for before in made):
        return
    order = _order(needs)
    if len(order) < len(needs):
        node = graph.node[_on_circle(needs, set(range(len(needs))) - set(order))]
        raise ModelError(f"the nodes of {where} form a circle: {label(node)} ({node.op_type}) needs its own result")
    # Copies: clearing the field clears the nodes themselves.
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes[number] for number in order)


def _order(needs: Sequence[set[int]]) -> list[int]:
    """Numbers such that each comes after those that it needs, the lowest first; those on circles are missing."""
    readers: list[list[int]] = [[] for _ in needs]
    for number, made in enumerate(needs):
        for before in made:
            readers[before].append(number)
    missing = [len(made) for made in needs]
    ready = [number for number, count in enumerate(missing) if not count]
    order = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for reader in readers[number]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order


def _on_circle(needs: Sequence[set[int]], left: set[int]) -> int:
    """One of `left` that needs itself through others: from any of them, back along what is left."""

    def walk() -> Iterator[int]:
        number = min(left)
        while True:
            yield number
            number = min(needs[number] & left)

    seen: set[int] = set()
    for number in walk():
        if number in seen:
            return number
        seen.add(number)
    raise AssertionError("a walk through finitely many nodes meets one again")
