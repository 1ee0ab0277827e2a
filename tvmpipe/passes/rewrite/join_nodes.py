"""Nodes of the ONNX model whose variables a rewrite removed join those of the variable that their results went into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.frontend.dataflow import readers_of
from tvmpipe.passes.frontend.onnx_nodes import Origin, Origins, nodes_of, renamed


@dataclass(frozen=True)
class Flow:
    """The variables of `main` in the order they are bound, and of each one those whose bindings read it.

    Taken before a rewrite: TVM's mutators change bindings of the module they are given where nothing else holds them.
    """

    variables: tuple[Any, ...]
    readers: Mapping[Any, Sequence[Any]]


def flow_of(module: Any) -> Flow:
    """The flow of a module as it is now."""
    return Flow(_variables_of(module), readers_of(module))


def _variables_of(module: Any) -> tuple[Any, ...]:
    return tuple(binding.var for block in module["main"].body.blocks for binding in block.bindings)


def join_nodes(before: Flow, after: Any) -> Any:
    """`after`, which a rewrite made of what was `before`, with the nodes that were lost on the way.

    A rewrite that makes one call of several keeps the variable of the last, from which the others' nodes are found
    here: from each lost one along its readers to the first that are still there. What nobody read is gone.
    """
    now = _variables_of(after)
    kept = {node for variable in now for node in nodes_of(variable)}
    if all(node in kept for variable in before.variables for node in nodes_of(variable)):
        return after
    joining: dict[Origin, set[Origin]] = {}  # a node that is still there -> those that join it
    into: dict[Any, set[Origin]] = {}  # a variable -> nodes that are still there and that it went into
    for variable in reversed(before.variables):
        nodes = nodes_of(variable)
        readers = (into[reader] for reader in before.readers.get(variable, ()) if reader in into)
        into[variable] = kept.intersection(nodes) or {node for reader in readers for node in reader}
        for node in into[variable]:
            joining.setdefault(node, set()).update(set(nodes) - kept)

    def joined(variable: Any) -> Origins:
        nodes = nodes_of(variable)
        return tuple(sorted({*nodes, *(more for node in nodes for more in joining.get(node, ()))}))

    return renamed(after, {variable: joined(variable) for variable in now})


def inherit_nodes(before: Flow, after: Any) -> Any:
    """`after`, which a rewrite made of what was `before`; new variables come from the nodes of their first reader.

    For rewrites that make several calls of one and keep the variable of the last.
    """
    known, flow = set(before.variables), flow_of(after)
    nodes: dict[Any, Origins] = {}
    for variable in reversed(flow.variables):
        nodes[variable] = nodes_of(variable)
        if variable not in known and not nodes[variable]:
            readers = flow.readers.get(variable, ())
            nodes[variable] = next((nodes[reader] for reader in readers if reader in nodes), ())
    return renamed(after, nodes)
