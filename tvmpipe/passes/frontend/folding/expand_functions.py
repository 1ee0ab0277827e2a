"""Operators that the ONNX standard defines by other operators: what a node stands for, where nothing takes it whole.

The standard gives the body of such a function; where the body depends on the node's attributes, on which inputs it has
and on their types, the standard builds it for the node.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import onnx
from onnx import defs

from tvmpipe.passes.frontend.onnx_values import attribute_of, first_output, graphs_of, plain_domain, renamed_node

_LEFT = frozenset(("Bernoulli", "Range", "SequenceMap"))
"""Functions whose bodies are random numbers, loops or sequences: nothing is won by them."""


def _reads_further_outputs(node: onnx.NodeProto) -> bool:
    return any(node.output[1:])


def _is_crd(node: onnx.NodeProto) -> bool:
    return bool(attribute_of(node, "mode") == b"CRD")


def _may_reduce_nothing(node: onnx.NodeProto) -> bool:
    return bool(attribute_of(node, "noop_with_empty_axes", 0))


EXPANDED: Mapping[str, Callable[[onnx.NodeProto], bool]] = {
    # What TVM calls Attention is com.microsoft's.
    "Attention": lambda _: True,
    "LayerNormalization": _reads_further_outputs,
    "SpaceToDepth": _is_crd,
    # TVM gives their input on where nothing is reduced, without the absolute value, square or exponential.
    **{f"Reduce{name}": _may_reduce_nothing for name in ("L1", "L2", "LogSum", "LogSumExp", "SumSquare")},
}
"""Operators that TVM or a converter takes, except for the nodes of which this holds."""


def is_function(operator: str) -> bool:
    """Whether the newest version of an operator of the standard is expanded where nothing takes it whole."""
    schema: Any = defs.get_schema(operator)
    return operator not in _LEFT and bool(schema.has_function or schema.has_context_dependent_function)


def expanded(
    node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto], versions: Mapping[str, int]
) -> list[onnx.NodeProto] | None:
    """The nodes that a node stands for, in order; None for what is no function, or is taken whole.

    `types` are those of the values that it reads, as far as they are known; `versions` of the operators that the model
    imports, by domain ("" is ONNX's own). Values inside get names behind that of the node's first output.
    """
    domain = plain_domain(node.domain)
    if (domain == "" and node.op_type in _LEFT) or _taken_whole(domain, node):
        return None
    body = _body(node, domain, types, versions)
    if body is None:
        return None
    prefix = f"{first_output(node)}/{node.op_type}"
    given = {attribute.name: attribute for attribute in body.attribute_proto}
    given |= {attribute.name: attribute for attribute in node.attribute}
    names = dict(zip(body.input, (*node.input, *[""] * len(body.input)), strict=False))
    for name, outer in zip(body.output, (*node.output, *[""] * len(body.output)), strict=False):
        names[name] = outer or f"{prefix}/{name}"
    made = (name for one in body.node for name in one.output if name)
    names |= {name: f"{prefix}/{name}" for name in made if name not in names}
    return [_instance(one, f"{prefix}/{one.op_type}{place}", names, given) for place, one in enumerate(body.node)]


def _taken_whole(domain: str, node: onnx.NodeProto) -> bool:
    if domain == "" and node.op_type in EXPANDED and EXPANDED[node.op_type](node):
        return False
    return (domain, node.op_type) in _taken()


@functools.cache
def _taken() -> Collection[tuple[str, str]]:
    """Operators, by domain and type, that TVM or a converter of our own takes."""
    from tvm.relax.frontend.onnx import onnx_frontend

    from tvmpipe.passes.frontend.converters import converters

    return frozenset(("", name) for name in onnx_frontend._get_convert_map()) | converters().keys()


def _body(
    node: onnx.NodeProto, domain: str, types: Mapping[str, onnx.TypeProto], versions: Mapping[str, int]
) -> onnx.FunctionProto | None:
    """The body of the newest version of a function that the model imports; None for what is none."""
    version = versions.get(domain, 1)
    try:
        schema: Any = defs.get_schema(node.op_type, version, domain)  # onnx types no functions
    except defs.SchemaError:
        return None
    plain = _newest(schema.function_opset_versions, version)
    made = _newest(schema.context_dependent_function_opset_versions, version)
    if made is not None:
        read = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
        text = schema.get_context_dependent_function_with_opset_version(made, node.SerializeToString(), read)
    elif plain is not None:
        text = schema.get_function_with_opset_version(plain)
    else:
        return None
    if not text:
        return None  # there is none for these inputs
    body = onnx.FunctionProto.FromString(text)
    named = {attribute.name for attribute in body.attribute_proto}
    body.attribute_proto.extend(
        attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in named and attribute.default_value.type
    )
    return body


def _newest(versions: Sequence[int], imported: int) -> int | None:
    return max((version for version in versions if version <= imported), default=None)


def _instance(
    node: onnx.NodeProto, name: str, names: Mapping[str, str], given: Mapping[str, onnx.AttributeProto]
) -> onnx.NodeProto:
    """A node of a body under a name of its own, with the values and attributes of what the body stands for."""
    copy = renamed_node(node, names)
    copy.name = name
    _fill_attributes(copy, given)
    return copy


def _fill_attributes(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> None:
    """Put the values of the function's attributes where a node, or one in a graph inside it, refers to them."""
    kept = []
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            kept.append(attribute)
        elif attribute.ref_attr_name in given:
            value = onnx.AttributeProto()
            value.CopyFrom(given[attribute.ref_attr_name])
            value.name = attribute.name
            kept.append(value)
    copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
    del node.attribute[:]
    node.attribute.extend(copies)
    for graph in graphs_of(node):
        for inner in graph.node:
            _fill_attributes(inner, given)
