"""Sum, Mean, Max and Min as operators on two tensors at a time, which fuse with what is around them.

TVM's converters stack their inputs and reduce the stack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


def _reduced(node: OnnxNode, combine: Callable[[Any, Any], Any]) -> Any:
    """`combine(combine(a, b), c)`, from left to right; inputs broadcast."""
    return functools.reduce(lambda total, term: node.emit(combine(total, term)), node.inputs)


@converts("Sum")
def sum_(node: OnnxNode) -> Any:
    """`a + b + c`."""
    from tvm import relax

    return _reduced(node, relax.op.add)


@converts("Mean")
def mean(node: OnnxNode) -> Any:
    """`(a + b + c) / 3`."""
    from tvm import relax

    return relax.op.divide(_reduced(node, relax.op.add), node.const(len(node.inputs)))


@converts("Max")
def max_(node: OnnxNode) -> Any:
    """The largest element at each place."""
    from tvm import relax

    return _reduced(node, relax.op.maximum)


@converts("Min")
def min_(node: OnnxNode) -> Any:
    """The smallest element at each place."""
    from tvm import relax

    return _reduced(node, relax.op.minimum)
