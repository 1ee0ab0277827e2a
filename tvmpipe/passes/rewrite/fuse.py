"""Operator fusion: Relax operators -> fused primitive functions, one TIR function each."""

from __future__ import annotations

from typing import Any

from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.primitives import PrimitiveGraph, extract_graph
from tvmpipe.passes.kernels.legalize import legalizations
from tvmpipe.passes.rewrite.block_channels import block_channels
from tvmpipe.passes.rewrite.clip_gather_indices import clip_lookups
from tvmpipe.passes.rewrite.find_attention import fuse_attention
from tvmpipe.passes.rewrite.find_norms import fuse_norms
from tvmpipe.passes.rewrite.fold_affine import fold_affine
from tvmpipe.passes.rewrite.fold_constants import fold_constants
from tvmpipe.passes.rewrite.restore_clip import restore_clip


def fuse(module: Any, signature: Signature) -> tuple[Any, PrimitiveGraph]:
    """Decompose, fold, legalize, `FuseOps`, `FuseTIR`: the fused module and the graph of its primitives.

    Raises UnsupportedModelError.
    """
    import tvm
    from tvm import relax

    transform = relax.transform
    # Constants are folded by running them here, hence the host's own target.
    with tvm.target.Target("llvm"):
        try:
            module = _run(
                module,
                transform.DeadCodeElimination(),
                clip_lookups,
                restore_clip,
                fuse_norms,
                fold_constants,
                fuse_attention,
                fold_affine,
                transform.DecomposeOpsForInference(),
                transform.FoldConstant(),
                block_channels,
                relax.backend.DispatchSortScan(),
                transform.LegalizeOps(legalizations()),
                transform.AnnotateTIROpPattern(),
                transform.FoldConstant(),
            )
        except Exception as error:  # TVM reports what it cannot legalize with many exception types
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise UnsupportedModelError(f"TVM cannot lower {signature.name}: {reason}") from error
        operators = {gvar.name_hint for gvar in module.get_global_vars()}
        module = transform.FuseOps()(module)
        inside = _operators_inside(module, operators)
        module = _run(module, transform.FuseTIR(), transform.DeadCodeElimination())
    return module, extract_graph(module, signature, inside)


def _run(module: Any, *passes: Any) -> Any:
    for one in passes:
        module = one(module)
    return module


def _operators_inside(module: Any, functions: set[str]) -> dict[str, tuple[str, ...]]:
    """Function name -> names of the operators fused into it, in order."""
    from tvm import relax

    inside: dict[str, tuple[str, ...]] = {name: (_operator_name(name, functions),) for name in functions}
    for gvar, function in module.functions.items():
        if not isinstance(function, relax.Function) or not function.attrs or "Primitive" not in function.attrs:
            continue
        called = [
            binding.value.args[0].name_hint
            for block in function.body.blocks
            for binding in block.bindings
            if getattr(getattr(binding.value, "op", None), "name", "") == "relax.call_tir"
        ]
        inside[gvar.name_hint] = tuple(_operator_name(name, functions) for name in called)
    return inside


def _operator_name(function: str, functions: set[str]) -> str:
    """ "conv2d12" -> "conv2d", "tir_tanh" -> "tanh".

    TVM numbers the functions of one operator after the first, and sets some apart from TIR's own by a prefix.
    """
    digits = len(function) - len(function.rstrip("0123456789"))
    for cut in range(len(function) - digits, len(function)):
        if function[:cut] in functions:
            function = function[:cut]
            break
    return function.removeprefix("tir_")
