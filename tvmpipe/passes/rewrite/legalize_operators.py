"""Relax operators -> calls of TIR functions: the kernels of this package, and TVM's rules for the rest."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.dataflow import operator_name
from tvmpipe.passes.frontend.onnx_nodes import nodes_of, renamed
from tvmpipe.passes.kernels.base import useful_flops
from tvmpipe.passes.kernels.legalize import legalizations
from tvmpipe.passes.rewrite.join_nodes import Flow, flow_of, inherit_nodes


def legalize_operators(module: Any) -> Any:
    """`module` without operators.

    ::

        y = R.matmul(x, w)
        ->
        p = R.call_tir(matmul, (x, packed_w), ...)   # the columns of y, and others to fill a block
        y = R.call_tir(take_columns, (p,), ...)

    Where an operator becomes several functions, its ONNX nodes are with the kernel among them.
    """
    from tvm import relax

    before = flow_of(module)
    return _nodes_to_kernels(before, inherit_nodes(before, relax.transform.LegalizeOps(legalizations())(module)))


def _nodes_to_kernels(before: Flow, after: Any) -> Any:
    """`after` where, of a kernel and the functions that were made around it, the kernel alone has their nodes."""
    old = set(before.variables)
    bindings = [binding for block in after["main"].body.blocks for binding in block.bindings]
    new_kernels = {
        node
        for binding in bindings
        if binding.var not in old and _is_kernel(binding.value, after)
        for node in nodes_of(binding.var)
    }
    return renamed(
        after,
        {
            binding.var: ()
            if new_kernels.intersection(nodes_of(binding.var)) and not _is_kernel(binding.value, after)
            else nodes_of(binding.var)
            for binding in bindings
        },
    )


def _is_kernel(value: Any, module: Any) -> bool:
    return operator_name(value) == "relax.call_tir" and useful_flops(module[value.args[0]]) > 0
