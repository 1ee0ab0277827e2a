"""Let convolutions along one axis run along the width of images, the axis that kernels tile and vectorise.

A convolution of `[N, C, L]`, and one of an image of one column, `[N, C, L, 1]`, are the same as one of an image of one
row, `[N, C, 1, L]`. The row stays until something reads the value that knows no images: a view costs nothing where it
stands alone, and here none stands between one convolution and the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name, readers_of
from tvmpipe.passes.frontend.onnx_nodes import emit_from
from tvmpipe.passes.kernels.base import constant_of, is_float32, shape_of

_UNARY = {
    *(
        "relax.nn.relu",
        "relax.nn.leakyrelu",
        "relax.nn.silu",
        "relax.nn.gelu",
        "relax.nn.gelu_tanh",
        "relax.nn.softplus",
    ),
    *("relax.sigmoid", "relax.tanh", "relax.clip", "relax.exp", "relax.log", "relax.sqrt", "relax.rsqrt", "relax.abs"),
    *("relax.negative", "relax.erf", "relax.square", "relax.sin", "relax.cos"),
}
_BINARY = {
    *("relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.power"),
    *("relax.maximum", "relax.minimum"),
}


@dataclass(frozen=True)
class _Row:
    """A variable of shape `[N, C, 1, L]` that holds a value of shape `shape`, `[N, C, L]` or `[N, C, L, 1]`."""

    variable: Any
    shape: tuple[int, ...]


def convolve_along_width(module: Any) -> Any:
    """`module` with the convolutions along one axis of `main`, and what lies between them, on images of one row.

    ::

        a = R.nn.conv1d(x, weight, strides=[2])                # [N, C, L]
        y = R.nn.relu(a)
        ->
        b = R.reshape(x, (N, C, 1, L))
        c = R.nn.conv2d(b, weight, strides=[1, 2])             # weight as [K, C, 1, R]
        d = R.nn.relu(c)
        y = R.reshape(d, (N, K, L))

    Weights are constants; where they are not, the convolution stays as it is.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    definition, _ = definitions_of(module)
    readers = readers_of(module)

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def __init__(self, module: Any) -> None:
            super().__init__(module)
            self.rows: dict[Any, _Row] = {}
            self.views: dict[Any, Any] = {}  # a variable that is a row -> the value it holds
            self.made: dict[Any, Any] = {}  # a variable that is none -> its row
            self.norms: dict[Any, Any] = {}  # batch norms of rows, emitted where their first result is read

        def visit_var_binding_(self, binding: Any) -> None:
            rules = _Rows(self)
            reads = [definition.get(reader) for reader in readers.get(binding.var, ())]
            if rules.is_norm(binding.value) and all(_is_first(item) for item in reads):
                self.norms[binding.var] = binding.value
                return
            value = rules.rewrite(binding.value)
            if value is None:
                super().visit_var_binding_(binding)
                return
            row = _Row(emit_from(self.builder_, value, binding.var), shape_of(binding.var))
            self.rows[binding.var] = row
            if not isinstance(binding.var, relax.DataflowVar):
                view = relax.op.reshape(row.variable, row.shape)
                self.set_var_remap(binding.var, emit_from(self.builder_, view, binding.var, output=True))

        def visit_dataflow_var_(self, variable: Any) -> Any:
            if variable not in self.rows:
                return super().visit_dataflow_var_(variable)
            if variable not in self.views:
                row = self.rows[variable]
                self.views[variable] = self.builder_.emit(relax.op.reshape(row.variable, row.shape))
            return self.views[variable]

    return mutated(Rewriter(module), module)


class _Rows:
    """The rule for each operator: an expression of a row, or None to leave the operator as it is."""

    def __init__(self, rewriter: Any) -> None:
        self.rewriter = rewriter

    def rewrite(self, call: Any) -> Any | None:
        from tvm import relax

        name = operator_name(call)
        if name in ("relax.nn.conv1d", "relax.nn.conv1d_transpose"):
            return self._conv1d(call)
        if name == "relax.nn.conv2d":
            return self._conv2d(call)
        if isinstance(call, relax.TupleGetItem):
            return self._normalised(call)
        if name == "relax.concat":
            return self._concat(call)
        if not any(self._row(argument) for argument in getattr(call, "args", ())):
            return None
        if name in _UNARY:
            return self._with(call, [self._row(call.args[0]).variable, *call.args[1:]])  # type: ignore[union-attr]
        if name in _BINARY:
            return self._binary(call)
        if name in ("relax.nn.max_pool1d", "relax.nn.avg_pool1d", "relax.nn.max_pool2d", "relax.nn.avg_pool2d"):
            return self._pool(call)
        if name in ("relax.mean", "relax.nn.adaptive_avg_pool1d", "relax.nn.adaptive_avg_pool2d"):
            return self._global_pool(call)
        return None

    def _row(self, expression: Any) -> _Row | None:
        from tvm import relax

        return self.rewriter.rows.get(expression) if isinstance(expression, relax.Var) else None

    def _as_row(self, expression: Any) -> Any:
        """The row of any value of a row's shape."""
        from tvm import relax

        row = self._row(expression)
        if row is not None:
            return row.variable
        made = self.rewriter.made
        if expression not in made:
            view = relax.op.reshape(self.rewriter.visit_expr(expression), _row_shape(shape_of(expression)))
            made[expression] = self.rewriter.builder_.emit(view)
        return made[expression]

    def _with(self, call: Any, arguments: Sequence[Any]) -> Any:
        import tvm

        return tvm.ir.Call(call.op, list(arguments), call.attrs, call.ty_args)

    def _conv1d(self, call: Any) -> Any | None:
        data, weight = call.args
        attrs, array = call.attrs, constant_of(weight)
        transposed = call.op.name == "relax.nn.conv1d_transpose"
        layouts = ("NCW", "IOW" if transposed else "OIW")
        if array is None or not is_float32(data, weight) or (attrs.data_layout, attrs.kernel_layout) != layouts:
            return None
        more = {"output_padding": (0, int(attrs.output_padding[0]))} if transposed else {}
        sides = _sides(attrs.padding)
        return self._convolution(data, array, int(attrs.strides[0]), sides, int(attrs.dilation[0]), attrs, **more)

    def _conv2d(self, call: Any) -> Any | None:
        data, weight = call.args
        attrs, array = call.attrs, constant_of(weight)
        if (
            array is None
            or not is_float32(data, weight)
            or (attrs.data_layout, attrs.kernel_layout) != ("NCHW", "OIHW")
            or not _is_column(shape_of(data))
            or not _is_column(shape_of(call))
        ):
            return None
        top, left, bottom, _ = _padding(attrs.padding)
        # Of the kernel's columns one lies on the image's; the others lie on padding.
        place, beside = divmod(left, int(attrs.dilation[1]))
        if beside or place >= array.shape[3]:
            return None
        return self._convolution(
            data, array[:, :, :, place], int(attrs.strides[0]), (top, bottom), int(attrs.dilation[0]), attrs
        )

    def _convolution(
        self,
        data: Any,
        weight: NDArray[np.float32],
        stride: int,
        padding: tuple[int, int],
        dilation: int,
        attrs: Any,
        **more: Any,
    ) -> Any:
        """A convolution of a row, a transposed one where there is `more` to say of it."""
        from tvm import relax

        convolution = relax.op.nn.conv2d_transpose if more else relax.op.nn.conv2d
        return convolution(
            self._as_row(data),
            relax.const(np.ascontiguousarray(weight[:, :, None, :]), "float32"),
            strides=(1, stride),
            padding=(0, padding[0], 0, padding[1]),
            dilation=(1, dilation),
            groups=int(attrs.groups),
            **more,
        )

    def _binary(self, call: Any) -> Any | None:
        if not is_float32(*call.args):
            return None
        shape = shape_of(call)
        sides = [self._operand(argument, shape) for argument in call.args]
        return None if any(side is None for side in sides) else self._with(call, sides)

    def _operand(self, expression: Any, shape: tuple[int, ...]) -> Any | None:
        """One side of a binary operator so that it broadcasts against a row of a value of `shape`, or None."""
        from tvm import relax

        row = self._row(expression)
        if row is not None:
            return row.variable if len(row.shape) == len(shape) else None
        array = constant_of(expression)
        if array is not None:
            if array.ndim > len(shape):
                return None
            padded = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
            # A constant of several columns would make an image of several columns of one.
            return relax.const(padded.reshape(_row_shape(padded.shape)), "float32") if _is_line(padded.shape) else None
        return self._as_row(expression) if len(shape_of(expression)) == len(shape) and _is_line(shape) else None

    def _pool(self, call: Any) -> Any | None:
        from tvm import relax

        attrs = call.attrs
        row = self._row(call.args[0])
        if row is None or not _is_line(shape_of(call)) or bool(attrs.ceil_mode):
            return None
        if len(row.shape) == 3:
            if attrs.layout != "NCW":
                return None
            sides, others = _sides(attrs.padding), (0, 0)
            sizes = [[1, int(extent[0])] for extent in (attrs.pool_size, attrs.strides, attrs.dilation)]
        else:
            if attrs.layout != "NCHW":
                return None
            top, left, bottom, right = _padding(attrs.padding)
            sides, others = (top, bottom), (left, right)
            sizes = [[int(e) for e in reversed(extent)] for extent in (attrs.pool_size, attrs.strides, attrs.dilation)]
        pool = relax.op.nn.max_pool2d if "max" in call.op.name else relax.op.nn.avg_pool2d
        return pool(
            row.variable,
            pool_size=sizes[0],
            strides=sizes[1],
            padding=[others[0], sides[0], others[1], sides[1]],
            dilation=sizes[2],
            count_include_pad=bool(attrs.count_include_pad),
        )

    def _global_pool(self, call: Any) -> Any | None:
        """A mean over all places, whose axes stay."""
        from tvm import relax

        attrs = call.attrs
        row = self._row(call.args[0])
        if row is None or shape_of(call) != (*row.shape[:2], *(1 for _ in row.shape[2:])):
            return None
        if call.op.name == "relax.mean":
            axes = [] if attrs.axis is None else [int(axis) % len(row.shape) for axis in attrs.axis]
            if 2 not in axes or any(axis < 2 and row.shape[axis] > 1 for axis in axes):
                return None
        return relax.op.mean(row.variable, axis=[2, 3], keepdims=True)

    def _concat(self, call: Any) -> Any | None:
        from tvm import relax

        parts, axis = call.args[0], call.attrs.axis
        if not isinstance(parts, relax.Tuple) or axis is None or int(axis) % len(shape_of(call)) != 1:
            return None
        rows = [self._row(part) for part in parts.fields]
        if any(row is None for row in rows):
            return None
        return relax.op.concat([row.variable for row in rows if row is not None], axis=1)

    def is_norm(self, call: Any) -> bool:
        """Whether this is a batch norm of a row's channels."""
        return (
            operator_name(call) == "relax.nn.batch_norm"
            and self._row(call.args[0]) is not None
            and int(call.attrs.axis) == 1
            and is_float32(*call.args)
        )

    def _normalised(self, item: Any) -> Any | None:
        """The first result of a batch norm."""
        from tvm import relax

        norm = self.rewriter.norms.get(item.tuple_value)
        if norm is None:
            return None
        arguments = [self._as_row(norm.args[0]), *map(self.rewriter.visit_expr, norm.args[1:])]
        return relax.TupleGetItem(self.rewriter.builder_.emit(self._with(norm, arguments)), 0)


def _is_first(item: Any) -> bool:
    from tvm import relax

    return isinstance(item, relax.TupleGetItem) and int(item.index) == 0


def _is_column(shape: Sequence[int]) -> bool:
    """Whether an image is one column of several rows."""
    return len(shape) == 4 and shape[3] == 1 and shape[2] > 1


def _is_line(shape: Sequence[int]) -> bool:
    """Whether a value is `[N, C, L]` or `[N, C, L, 1]`."""
    return len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)


def _row_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """`[N, C, 1, L]` of `[N, C, L]` or `[N, C, L, 1]`."""
    return shape[0], shape[1], 1, shape[2]


def _sides(padding: Any) -> tuple[int, int]:
    sides = [int(side) for side in padding]
    return (sides[0], sides[-1])


def _padding(padding: Any) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    sides = [int(side) for side in padding]
    top, left, bottom, right = sides if len(sides) == 4 else (sides * 2 if len(sides) == 2 else sides * 4)
    return top, left, bottom, right
