"""Variables that hold images in blocks of 16 channels, and how calls on them are emitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import INJECTIVE
from tvmpipe.passes.kernels.channel_blocks import pack


@dataclass(frozen=True)
class Blocked:
    """A variable of shape `[N, ceil(channels/16), H, W, 16]`."""

    variable: Any
    channels: int


class BlockedValues:
    """What the rules for operators share: the variables in blocks so far, and the builder.

    `rewriter` is the mutator that runs over the module, `variable` the one that is bound to what a rule makes.
    """

    def __init__(self, rewriter: Any, variable: Any) -> None:
        self.rewriter = rewriter
        self.builder = rewriter.builder_
        self.variable = variable

    def is_blocked(self, expression: Any) -> bool:
        from tvm import relax

        return isinstance(expression, relax.DataflowVar) and expression in self.rewriter.blocked

    def emit(self, channels: int, compute: Any, *tensors: Any, pattern: int, **settings: Any) -> Blocked:
        return self.call(channels, self.computed(compute, *tensors, pattern=pattern, **settings))

    def computed(self, compute: Any, *tensors: Any, pattern: int, **settings: Any) -> Any:
        return self.builder.call_te(
            lambda *placeholders: compute(*placeholders, **settings),
            *tensors,
            primfunc_name_hint=compute.__name__,
            primfunc_attrs={"op_pattern": pattern},
        )

    def packed(self, expression: Any) -> Any:
        """The blocks of a 4-D float expression, packed now if they are not yet."""
        if self.is_blocked(expression):
            return self.rewriter.blocked[expression].variable
        plain = self.rewriter.visit_expr(expression)
        return self.builder.emit(self.computed(pack, plain, pattern=INJECTIVE))

    def call(self, channels: int, call: Any) -> Blocked:
        return Blocked(emit_from(self.builder, call, self.variable), channels)
