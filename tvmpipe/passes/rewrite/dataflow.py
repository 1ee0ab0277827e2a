"""Who makes and who reads the variables of `main`."""

from __future__ import annotations

from typing import Any


def definitions_of(module: Any) -> tuple[dict[Any, Any], dict[Any, int]]:
    """(variable -> the expression bound to it, variable -> how many bindings read it), of `main`'s dataflow blocks."""
    from tvm import relax

    definition: dict[Any, Any] = {}
    readers: dict[Any, int] = {}
    for block in module["main"].body.blocks:
        if isinstance(block, relax.DataflowBlock):
            definition.update((binding.var, binding.value) for binding in block.bindings)
            readers.update((variable, len(users)) for variable, users in relax.analysis.udchain(block).items())
    return definition, readers
