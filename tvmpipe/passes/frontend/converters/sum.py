"""Sum as additions, which fuse with what is around them; TVM's converter stacks its inputs and reduces the stack."""

from __future__ import annotations

import functools
from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("Sum")
def sum_(node: OnnxNode) -> Any:
    """`add(add(a, b), c)`, from left to right; inputs broadcast."""
    from tvm import relax

    return functools.reduce(lambda total, term: node.builder.emit(relax.op.add(total, term)), node.inputs)
