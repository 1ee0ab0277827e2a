"""Keep images in blocks of 16 channels from the first convolution to the last operator that can read them so.

Layouts change only at the edges of such regions. Every operator here computes on blocks what it computes on
`[N, C, H, W]`; the lanes of a last, partial block hold no channel and are never looked at, only kept finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.kernels.base import (
    BLOCK,
    INJECTIVE,
    OUT_FUSABLE,
    REDUCTION,
    constant_of,
    is_float32,
    shape_of,
)
from tvmpipe.passes.kernels.channel_blocks import pack_constant, unpack
from tvmpipe.passes.kernels.conv2d.compute import conv2d, merge_groups, pack_weight
from tvmpipe.passes.kernels.conv2d.transposed import interleave, phases_of
from tvmpipe.passes.kernels.depthwise.compute import (
    depthwise_conv2d,
    pack_depthwise_weight,
)
from tvmpipe.passes.kernels.half_weights import half_types, narrowed
from tvmpipe.passes.kernels.pool.compute import avg_pool2d, global_avg_pool2d, max_pool2d
from tvmpipe.passes.kernels.window import Window, window_of
from tvmpipe.passes.kernels.winograd.compute import choose_tile, transform_weight, winograd_conv2d
from tvmpipe.passes.rewrite.block_integers import integer_convolution, quantised
from tvmpipe.passes.rewrite.blocked_values import Blocked, BlockedValues

_UNARY = {"relax.nn.relu", "relax.clip", "relax.sigmoid", "relax.nn.silu", "relax.tanh", "relax.nn.leakyrelu"}
_BINARY = {"relax.add", "relax.subtract", "relax.multiply", "relax.maximum", "relax.minimum", "relax.divide"}


def block_channels(module: Any) -> Any:
    """`module` with the convolutions of `main`, and what lies between them, on blocked channels.

    ::

        a = R.nn.conv2d(x, weight)                      # [N, C, H, W]
        y = R.nn.relu(a)
        ->
        b = R.call_tir(pack, (x,), ...)                 # [N, C/16, H, W, 16]
        c = R.call_tir(conv2d, (b, packed_weight), ...)
        d = R.nn.relu(c)
        y = R.call_tir(unpack_channels, (d,), ...)
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.definitions, _ = definitions_of(module)
            self.blocked: dict[Any, Blocked] = {}
            self.plain: dict[Any, Any] = {}
            self.halves = half_types(module)

        def visit_var_binding_(self, binding: Any) -> None:
            if binding.value in self.blocked:  # another name of a variable
                self._keep(binding.var, self.blocked[binding.value])
                return
            result = _Layouts(self, binding.var).rewrite(binding.value)
            if result is None:
                super().visit_var_binding_(binding)
                return
            self._keep(binding.var, result)

        def _keep(self, variable: Any, blocked: Blocked) -> None:
            self.blocked[variable] = blocked
            if not isinstance(variable, relax.DataflowVar):
                self.set_var_remap(variable, self.builder_.emit_output(self._unpacked(variable)))

        def visit_dataflow_var_(self, variable: Any) -> Any:
            return self._unpacked(variable) if variable in self.blocked else super().visit_dataflow_var_(variable)

        def _unpacked(self, variable: Any) -> Any:
            if variable not in self.plain:
                blocked = self.blocked[variable]
                self.plain[variable] = self.builder_.emit(
                    self.builder_.call_te(
                        unpack,
                        blocked.variable,
                        blocked.channels,
                        primfunc_name_hint="unpack_channels",
                        primfunc_attrs={"op_pattern": INJECTIVE},
                    )
                )
            return self.plain[variable]

    return mutated(Rewriter(module), module)


class _Layouts(BlockedValues):
    """The rule for each operator: a `Blocked` result, or None to leave the operator as it is."""

    def rewrite(self, call: Any) -> Blocked | None:
        name = operator_name(call)
        if name == "relax.nn.conv2d":
            return self._conv2d(call) or integer_convolution(self, call)
        if name == "relax.nn.conv2d_transpose":
            return self._conv2d_transpose(call)
        if name != "relax.concat" and not any(self.is_blocked(argument) for argument in getattr(call, "args", ())):
            return None
        if name in _UNARY:
            return self._unary(call)
        if name in _BINARY:
            return self._binary(call)
        rule: Callable[[Any], Blocked | None] | None = {
            "relax.nn.max_pool2d": self._pool,
            "relax.nn.avg_pool2d": self._pool,
            "relax.nn.adaptive_avg_pool2d": self._global_pool,
            "relax.mean": self._global_pool,
            "relax.concat": self._concat,
            "relax.quantize": lambda call: quantised(self, call),
            "relax.dequantize": lambda call: quantised(self, call),
        }.get(name)
        return rule(call) if rule else None

    def _conv2d(self, call: Any) -> Blocked | None:
        attrs = call.attrs
        array = _weight(call, "OIHW")
        if array is None:
            return None
        window = window_of(attrs, array.shape[2:])
        flops = 2 * math.prod(shape_of(call)) * math.prod(array.shape[1:])
        return self._convolution(call.args[0], array, window, int(attrs.groups), flops)

    def _conv2d_transpose(self, call: Any) -> Blocked | None:
        attrs = call.attrs
        array = _weight(call, "IOHW")
        window = window_of(attrs, (1, 1))
        if array is None or window.dilation != (1, 1):
            return None
        data, groups = call.args[0], int(attrs.groups)
        _, channels, *output = shape_of(call)
        size = (output[0], output[1])
        image = shape_of(data)
        phases, weight = phases_of(array, (image[2], image[3]), size, window.strides, window.padding[:2], groups)
        flops = 2 * math.prod(image) * math.prod(array.shape[1:])
        made = self._convolution(data, weight, phases.window, groups, flops)
        if phases.is_whole(image[2], image[3]):
            return made
        whole = self.builder.emit(self.computed(interleave, made.variable, pattern=INJECTIVE, phases=phases))
        return Blocked(whole, channels)

    def _convolution(self, data: Any, weight: NDArray[np.float32], window: Window, groups: int, flops: int) -> Blocked:
        """The convolution of a 4-D expression with `[K, C/groups, R, S]`; `flops` are its useful operations."""
        from tvm import relax

        outputs = weight.shape[0]
        _, channels, *image = shape_of(data)
        settings: dict[str, Any] = {"pattern": OUT_FUSABLE, "window": window, "flops": flops}
        if groups == channels == outputs and groups > 1:
            packed = relax.const(pack_depthwise_weight(weight), "float32")
            return self.emit(outputs, depthwise_conv2d, self.packed(data), packed, **settings)
        if groups > 1:
            merged, groups = merge_groups(weight, groups)
            packed = relax.const(pack_weight(merged, blocked_input=True), "float32")
            return self.emit(outputs, conv2d, self.packed(data), packed, groups=groups, **settings)
        # A few channels, as those of a photograph, would leave most of a block empty.
        plain = channels < BLOCK and not self.is_blocked(data)
        source = self.rewriter.visit_expr(data) if plain else self.packed(data)
        # Transformed, a weight is several times as large, and no half any more.
        direct = plain or narrowed(weight, self.rewriter.halves) is not None
        m = None if direct else choose_tile(weight.shape, window, *window.output(image[0], image[1]))
        if m is not None:
            packed = relax.const(transform_weight(weight, m), "float32")
            return self.emit(outputs, winograd_conv2d, source, packed, m=m, **settings)
        packed = relax.const(pack_weight(weight, blocked_input=not plain), "float32")
        return self.emit(outputs, conv2d, source, packed, **settings)

    def _unary(self, call: Any) -> Blocked:
        import tvm

        blocked = self.rewriter.blocked[call.args[0]]
        arguments = [blocked.variable, *call.args[1:]]
        return self.call(blocked.channels, tvm.ir.Call(call.op, arguments, call.attrs, call.ty_args))

    def _binary(self, call: Any) -> Blocked | None:
        import tvm

        sums = {str(argument.ty.dtype) for argument in call.args} == {"int32"} and call.op.name == "relax.add"
        if not is_float32(*call.args) and not sums:
            return None
        channels = shape_of(call)[1]
        divides = call.op.name == "relax.divide"
        if divides and channels % BLOCK and constant_of(call.args[1]) is None:
            return None  # 0/0 in the lanes without a channel
        arguments = []
        for place, argument in enumerate(call.args):
            side = self._operand(argument, channels, missing=1.0 if divides and place == 1 else 0.0)
            if side is None:
                return None
            arguments.append(side)
        return self.call(channels, tvm.ir.Call(call.op, arguments, call.attrs, call.ty_args))

    def _operand(self, expression: Any, channels: int, missing: float) -> Any:
        """One side of a binary operator so that it broadcasts against blocks, or None."""
        from tvm import relax

        if self.is_blocked(expression):
            blocked = self.rewriter.blocked[expression]
            return blocked.variable if blocked.channels == channels else None
        array = constant_of(expression)
        if array is not None:
            if array.size == 1:
                return relax.const(array.reshape(()), str(array.dtype))
            if array.ndim > 4 or (array.ndim >= 3 and array.shape[-3] not in (1, channels)):
                return None
            return relax.const(pack_constant(array, channels, missing), str(array.dtype))
        shape = shape_of(expression)
        return self.packed(expression) if len(shape) == 4 and shape[1] == channels else None

    def _pool(self, call: Any) -> Blocked | None:
        attrs = call.attrs
        if attrs.layout != "NCHW":
            return None
        blocked = self.rewriter.blocked[call.args[0]]
        _, _, height, width = shape_of(call)
        settings: dict[str, Any] = {"window": window_of(attrs, attrs.pool_size), "output": (height, width)}
        if call.op.name == "relax.nn.max_pool2d":
            return self.emit(blocked.channels, max_pool2d, blocked.variable, pattern=REDUCTION, **settings)
        settings["count_padding"] = bool(attrs.count_include_pad)
        return self.emit(blocked.channels, avg_pool2d, blocked.variable, pattern=REDUCTION, **settings)

    def _global_pool(self, call: Any) -> Blocked | None:
        attrs = call.attrs
        if call.op.name == "relax.mean":
            axes = sorted(int(axis) % 4 for axis in attrs.axis) if attrs.axis is not None else []
            if axes != [2, 3] or not attrs.keepdims:
                return None
        elif attrs.layout != "NCHW" or attrs.output_size is None or [int(s) for s in attrs.output_size] != [1, 1]:
            return None
        blocked = self.rewriter.blocked[call.args[0]]
        return self.emit(blocked.channels, global_avg_pool2d, blocked.variable, pattern=REDUCTION)

    def _concat(self, call: Any) -> Blocked | None:
        from tvm import relax

        parts = call.args[0]
        axis = call.attrs.axis
        if not isinstance(parts, relax.Tuple) or axis is None or len(shape_of(call)) != 4 or int(axis) % 4 != 1:
            return None
        if not all(self.is_blocked(part) for part in parts.fields):
            return None
        sources = [self.rewriter.blocked[part] for part in parts.fields]
        if any(source.channels % BLOCK for source in sources[:-1]):
            return None
        joined = relax.op.concat([source.variable for source in sources], axis=1)
        return self.call(sum(source.channels for source in sources), joined)


def _weight(call: Any, layout: str) -> NDArray[np.float32] | None:
    """The constant weight of a convolution of float32 images, or None."""
    attrs = call.attrs
    array: NDArray[np.float32] | None = constant_of(call.args[1])
    known = array is not None and is_float32(*call.args)
    return array if known and (attrs.data_layout, attrs.kernel_layout) == ("NCHW", layout) else None
