"""What a decoder's layers compute alike is computed once."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.rewrite.join_nodes import flow_of, inherit_nodes
from tvmpipe.passes.rewrite.write_states import length_of


def share_results(module: Any) -> Any:
    """`module` with one call where several are equal, in a model whose states grow.

    ::

        a = R.add(length, [0, 1, ..])       # where a layer's elements stand
        b = R.add(length, [0, 1, ..])       # and the next one's
        ->
        a = R.add(length, [0, 1, ..])

    Converters of attention with a cache compute positions, rotations and masks for each node. Elsewhere equal calls are
    left: fused into what reads them, they may cost less than a result that is stored.
    """
    from tvm import relax

    if length_of(module) is None:
        return module
    before = flow_of(module)
    shared = relax.transform.EliminateCommonSubexpr()(module)
    return inherit_nodes(before, relax.transform.CanonicalizeBindings()(shared))  # what is equal would be a copy
