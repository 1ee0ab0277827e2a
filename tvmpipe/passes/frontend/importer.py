"""A simplified ONNX model -> Relax, with converters of our own, errors that name the node, and variables likewise."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tvmpipe.errors import UnsupportedModelError, raised_by_tvm, reason_of
from tvmpipe.passes.frontend.arithmetic.element_types import carried, carrier, element_of, held, makes_numbers
from tvmpipe.passes.frontend.arithmetic.halves import HALVES, Precision, left_as, rounded, widened
from tvmpipe.passes.frontend.arithmetic.quantised import elementwise
from tvmpipe.passes.frontend.arithmetic.small_floats import is_small_float, round_to
from tvmpipe.passes.frontend.converters import converters
from tvmpipe.passes.frontend.converters.registry import OnnxNode
from tvmpipe.passes.frontend.dataflow import closed_blocks, readers_of
from tvmpipe.passes.frontend.fallback.calls import call_group, check_results, stand_in
from tvmpipe.passes.frontend.fallback.group import DOMAIN, FallbackGroup
from tvmpipe.passes.frontend.fallback.split import Split, split
from tvmpipe.passes.frontend.fallback.value_types import ValueType, read_types, value_types
from tvmpipe.passes.frontend.onnx_nodes import Origins, renamed
from tvmpipe.passes.frontend.onnx_values import first_output, opset_of, plain_domain, reads
from tvmpipe.passes.frontend.results import as_tensor
from tvmpipe.passes.frontend.simplify import Simplified, quiet
from tvmpipe.passes.frontend.unsupported import label, refused_nodes
from tvmpipe.passes.kernels.base import OPAQUE
from tvmpipe.tensors import TensorSpec

logger = logging.getLogger(__name__)


_ATTEMPTS = 40  # at an import, each with more nodes for ONNX Runtime than the one before


@dataclass(frozen=True)
class Relax:
    """A `tvm.IRModule`, and the groups of nodes that ONNX Runtime runs: what functions of their `symbol` are."""

    module: Any
    groups: tuple[FallbackGroup, ...] = ()


class _CannotImportError(Exception):
    """`nodes`: first result of each node that TVM cannot import -> why, in a sentence."""

    def __init__(self, nodes: Mapping[str, str]) -> None:
        super().__init__(*nodes.values())
        self.nodes = nodes


def to_relax(
    simplified: Simplified,
    inputs: Sequence[TensorSpec],
    *,
    fallback: bool,
    left: Mapping[str, str],
) -> Relax:
    """A model with these `inputs`, whose variables remember the nodes behind its values (see onnx_nodes.py).

    With `fallback`, what TVM cannot import is left to ONNX Runtime, and so are the nodes `left`: labels of nodes of the
    given model -> why. Raises UnsupportedModelError that names the node.
    """
    from tvm.relax.frontend.onnx import onnx_frontend

    model, nodes = simplified.model, simplified.nodes
    known = frozenset((*onnx_frontend._get_convert_map(), "Constant"))
    refused = refused_nodes(model, known, converters().keys(), simplified.kept)
    refused |= _places(model, nodes, left)
    place_of = {name: place for place, node in enumerate(model.graph.node) for name in node.output if name}
    types = functools.cache(lambda: value_types(model))
    if not fallback:
        try:
            if refused:
                raise _CannotImportError({first_output(model.graph.node[place]): refused[place] for place in refused})
            return Relax(_import(model, nodes, (), None))
        except _CannotImportError as error:
            why = {place_of[name]: why for name, why in error.nodes.items() if name in place_of}
            raise _refusal(model, inputs, why, types(), str(error)) from error.__cause__
    for _ in range(_ATTEMPTS):
        parts = Split(model, (), ())
        if refused:
            parts = split(model, inputs, refused, types())
        try:
            return Relax(_import(parts.model, _with_groups(model, nodes, parts), parts.groups, types), parts.groups)
        except _CannotImportError as error:
            more = {place_of[name]: why for name, why in error.nodes.items() if name in place_of}
            if not more.keys() - refused.keys():
                raise UnsupportedModelError(str(error)) from error.__cause__
            logger.info("left to ONNX Runtime: %s", "; ".join(more.values()))
            refused = {**refused, **more}
    raise UnsupportedModelError(
        f"after {_ATTEMPTS} attempts TVM still cannot import the model: {max(refused.items())[1]}"
    )


def _places(model: onnx.ModelProto, nodes: Mapping[str, Origins], left: Mapping[str, str]) -> dict[int, str]:
    """Places of the nodes that stand for those that are called like the keys of `left`, and what it says of them."""
    found = {}
    for place, node in enumerate(model.graph.node):
        labels = [origin.label for name in node.output for origin in nodes.get(name, ())]
        why = next((left[one] for one in labels if one in left), None)
        if why is not None:
            found[place] = why
    return found


def _refusal(
    model: onnx.ModelProto,
    inputs: Sequence[TensorSpec],
    refused: Mapping[int, str],
    types: Mapping[str, ValueType],
    sentence: str,
) -> UnsupportedModelError:
    """What is said of a model that is not to be left to ONNX Runtime: whether that would help."""
    if not refused:
        return UnsupportedModelError(sentence)
    try:
        split(model, inputs, refused, types)
    except UnsupportedModelError as error:
        return error
    place, why = next(iter(refused.items()))
    helps = "ONNX Runtime can run it, without --no-fallback (fallback=False)"
    return UnsupportedModelError(f"{why.rstrip('.')}; {read_types(model.graph.node[place], types)}; {helps}")


def _with_groups(model: onnx.ModelProto, nodes: Mapping[str, Origins], parts: Split) -> Mapping[str, Origins]:
    """The nodes behind values where a group's are behind all of its results."""
    found = dict(nodes)
    for group, places in zip(parts.groups, parts.places, strict=True):
        made = (name for place in places for name in model.graph.node[place].output)
        behind = tuple(sorted({origin for name in made for origin in nodes.get(name, ())}))
        found.update((spec.name, behind) for spec in group.outputs)
    return found


def _import(
    model: onnx.ModelProto,
    nodes: Mapping[str, Origins],
    groups: Sequence[FallbackGroup],
    types: Callable[[], Mapping[str, ValueType]] | None,
) -> Any:
    """The `tvm.IRModule` of a model in which nodes stand for `groups`. Raises _CannotImportError.

    With `types`, what a node makes must be a tensor that compiled stages can have; where they tell what a node makes
    that cannot be imported, the import goes on to find others.
    """
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import onnx_frontend

    own = converters()
    failed: dict[str, str] = {}
    rare = dict(carried(model)) | {
        spec.name: spec.dtype for group in groups for spec in group.outputs if spec.dtype in HALVES
    }
    precision = Precision(model, rare)
    read = {value.name for value in model.graph.output} | {name for node in model.graph.node for name in reads(node)}

    class Importer(onnx_frontend.ONNXGraphImporter):  # type: ignore[misc]
        """TVM's importer with our converters before its own, remembering which node it is at."""

        current: onnx.NodeProto | None = None

        def _parse_value_proto(self, value_proto: Any) -> Any:
            if isinstance(value_proto, onnx.NodeProto):
                self.current = value_proto
            return super()._parse_value_proto(value_proto)

        def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
            """`refused_nodes` has done that."""

        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            domain = self.current.domain if self.current is not None else ""
            if domain == DOMAIN:
                return widened(self.bb, call_group(groups[attrs["group"]], inputs, self.bb))
            if self.current is None or types is None:
                return self._converted(domain, op_name, inputs, attrs, opset)
            try:
                made = self._converted(domain, op_name, inputs, attrs, opset)
                check_results(made, self.current)
                return made
            except Exception as error:  # its converters raise every kind of exception
                if not (raised_by_tvm(error) or isinstance(error, NotImplementedError)):
                    logger.warning("fault in a converter: %s", _sentence(self.current, error), exc_info=error)
                failed[first_output(self.current)] = _sentence(self.current, error)
                made = stand_in(self.current, types())
                if made is None:
                    raise
                return made

        def _converted(self, domain: str, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            node = self.current if precision.elements else None
            if node is not None:
                if precision.is_nothing(node) and _is_float32(inputs[0]):
                    precision.note(node, nothing=True)
                    return inputs[0]
                self._round(node, inputs)
                precision.note(node)
            result = self._by_converter(domain, op_name, inputs, attrs, opset)
            result = result if node is None else widened(self.bb, result)
            results = self.current.output if self.current is not None else ()
            made = [rare.get(name) for name in results] if makes_numbers(op_name) else []
            return _rounded(self.bb, result, made) if any(made) else result

        def _round(self, node: onnx.NodeProto, inputs: Any) -> None:
            """Round those inputs of a node that it must read as numbers of the half types that they have."""
            for place in precision.to_round(node):
                name = node.input[place]
                if _is_float32(inputs[place]):
                    self._nodes[name] = inputs[place] = rounded(self.bb, inputs[place], precision.elements[name])
                    precision.exact.add(name)

        def _by_converter(self, domain: str, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            converter = own.get((plain_domain(domain), op_name))
            if converter is None:
                return super()._convert_operator(op_name, inputs, attrs, opset)
            names = self.current.input if self.current is not None else ()
            known = ((place, rare[name]) for place, name in enumerate(names) if name in rare)
            elements = {place: one for place, one in known if one not in HALVES or _is_float32(inputs[place])}
            made = self.current.output if self.current is not None else ()
            outputs = [name if name in read else "" for name in made]
            scope = [self._nodes, self._params]
            node = OnnxNode(op_name, opset, inputs, attrs, self.bb, scope, elements, outputs)
            return self.bb.normalize(converter(node))

        def _construct_nodes(self, graph: onnx.GraphProto) -> None:
            for value in graph.input:
                self._nodes[value.name] = widened(self.bb, self._nodes[value.name])
            super()._construct_nodes(graph)
            for value in graph.output:
                self._nodes[value.name] = as_tensor(self._nodes[value.name])
                element = element_of(value.type.tensor_type.elem_type)
                if element in HALVES:
                    made = self._nodes[value.name]
                    self._nodes[value.name] = left_as(self.bb, made, element, exact=value.name in precision.exact)

        def _parse_array(self, tensor_proto: onnx.TensorProto) -> Any:
            array = held(numpy_helper.to_array(tensor_proto).reshape(tuple(tensor_proto.dims)))
            return tvm.runtime.tensor(array.astype(np.float32) if array.dtype == np.float16 else array)

        def _new_var(self, var_name: str, shape: Any, dtype: str = "float32") -> Any:
            return super()._new_var(var_name, shape, carrier(str(dtype)))

        def origins(self) -> dict[int, Origins]:
            """Hash of an expression that some node made -> its nodes; the first counts where others pass it on."""
            found: dict[int, Origins] = {}
            for name, behind in nodes.items():
                if name in self._nodes:
                    found.setdefault(hash(self._nodes[name]), behind)
            return found

    importer = Importer(shape_dict=_empty_inputs(model.graph), dtype_dict="float32", keep_params_in_input=False)
    try:
        with quiet(), closed_blocks(importer.bb):
            module = importer.from_onnx(model.graph, opset_of(model))
            if not failed:
                return relax.transform.Normalize()(_with_nodes(module, importer.origins()))
    except Exception as error:  # TVM raises every kind of exception from its converters
        at = importer.current
        if at is None:
            raise UnsupportedModelError(f"TVM cannot import the model: {reason_of(error)}") from error
        failed.setdefault(first_output(at), _sentence(at, error))
        raise _CannotImportError(failed) from error
    raise _CannotImportError(failed)


def _sentence(node: onnx.NodeProto, error: Exception) -> str:
    return f"TVM cannot import node {label(node)} ({node.op_type}): {reason_of(error)}"


def _is_float32(value: Any) -> bool:
    return str(getattr(getattr(value, "ty", None), "dtype", "")) == "float32"


def _empty_inputs(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The shapes of inputs that have no elements: TVM's importer takes an extent of 0 for an open one."""
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    return {name: shape for name, shape in shapes.items() if 0 in shape}


def _rounded(builder: Any, result: Any, elements: Sequence[str | None]) -> Any:
    """Results of a node as numbers of the types that they have in the model, where Relax holds them in wider ones."""
    from tvm import relax, te

    def one(value: Any, element: str | None) -> Any:
        if element is None or element in HALVES or not is_small_float(element) or str(value.ty.dtype) != "float32":
            return value
        return elementwise(
            builder,
            lambda x: te.compute(x.shape, lambda *at: round_to(x(*at), element), name="rounded"),
            value,
            name="rounded",
            pattern=OPAQUE,
        )

    result = builder.normalize(result)
    if isinstance(result, relax.Tuple):
        padded = [*elements, *[None] * (len(result.fields) - len(elements))]
        return relax.Tuple([one(value, element) for value, element in zip(result.fields, padded, strict=True)])
    return one(result, elements[0])


def _with_nodes(module: Any, found: Mapping[int, Origins]) -> Any:
    """`module` whose variables in `main` remember their nodes.

    The importer binds an expression where it is first read, so that a node's result is found by what it is; what is
    between belongs to the node of its first reader.
    """
    from tvm import relax

    nodes: dict[Any, Origins] = {}
    readers = readers_of(module)
    for block in module["main"].body.blocks:
        if not isinstance(block, relax.DataflowBlock):
            continue  # control flow is left, which is refused later
        for binding in reversed(block.bindings):
            known = found.get(hash(binding.value), found.get(hash(binding.var)))
            if known is None:
                known = next((nodes[reader] for reader in readers.get(binding.var, ()) if reader in nodes), ())
            nodes[binding.var] = known
    # What only gives on another variable's value.
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if not nodes.get(binding.var) and isinstance(binding.value, relax.Var):
                nodes[binding.var] = nodes.get(binding.value, ())
    return renamed(module, nodes)
