"""Imported Relax -> primitives: the rewrites in their order, and the graph of what they leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.primitives import PrimitiveGraph, extract_graph
from tvmpipe.passes.rewrite.order import After, apply_rewrites


def fuse(
    module: Any, signature: Signature, after: After | None = None, groups: Sequence[FallbackGroup] = ()
) -> tuple[Any, PrimitiveGraph]:
    """The module of fused primitives and its graph; `after` sees the module after each rewrite, and its name.

    `groups` are what the module calls of ONNX Runtime.

    Raises UnsupportedModelError.
    """
    module = apply_rewrites(module, signature.name, after)
    return module, extract_graph(module, signature, groups)
