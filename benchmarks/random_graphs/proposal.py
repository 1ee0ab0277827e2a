"""What a maker proposes: a node, or a few that belong together, with its inputs.

A proposal need not be right: whoever asked runs it, and drops what nobody runs. So shapes are only as careful as it
takes for some of the tries to succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import helper

from benchmarks.random_graphs.pool import Array, Pool, Value


@dataclass(frozen=True)
class Proposal:
    """Nodes to try: `inputs` are values of the graph, new inputs, constants, or None for those left out.

    `nodes` read them as "i0", "i1", ..., and make "o0", "o1", ... and what lies between. `steps`: their results jump
    where an input changes a little, so that inputs must be exact; `moves`: results are as exact as inputs are; `last`:
    nothing may read the results, for what they are depends on rounding, or their shapes on data; `apart`: by how much
    of the quantisation step two right results may differ.
    """

    nodes: Sequence[onnx.NodeProto]
    inputs: Sequence[Value | Array | None]
    outputs: int = 1
    steps: bool = False
    moves: bool = False
    last: bool = False
    apart: int = 0

    @property
    def operators(self) -> list[str]:
        """Names of the nodes' operators; those of another domain than ONNX's behind its name."""
        found = [f"{node.domain}.{node.op_type}".lstrip(".") for node in self.nodes]
        return found


def node(
    operator: str,
    inputs: Sequence[Value | Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    domain: str = "",
    **how: Any,
) -> Proposal:
    """A proposal of one node."""
    names = ["" if one is None else f"i{place}" for place, one in enumerate(inputs)]
    results = [f"o{place}" for place in range(outputs)]
    made = helper.make_node(operator, names, results, domain=domain, **(attributes or {}))
    return Proposal([made], inputs, outputs, **how)


def without_results(proposal: Proposal, pool: Pool) -> Proposal:
    """The proposal with some results but the first left out, or the last ones not named."""
    if proposal.outputs == 1 or len(proposal.nodes) > 1 or pool.flip():
        return proposal
    (copy,) = proposal.nodes
    copy.output[:] = copy.output[: pool.integer(1, proposal.outputs)]
    return replace(proposal, outputs=len(copy.output))


Maker = Callable[[Pool, str], Proposal]

MAKERS: dict[str, Maker] = {}
"""What proposes a node of each operator, by its name, or domain and name."""


def makes(*operators: str) -> Callable[[Maker], Maker]:
    """Registers the function below as the maker of these operators; it is told which one is wanted."""

    def register(maker: Maker) -> Maker:
        for operator in operators:
            if operator in MAKERS:
                raise RuntimeError(f"two makers of {operator}")
            MAKERS[operator] = maker
        return maker

    return register
