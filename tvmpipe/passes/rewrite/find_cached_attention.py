"""Find attention over states that a step has written into, and make one primitive of it, whose loops end in time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvmpipe.passes.frontend.dataflow import definitions_of, mutated, operator_name
from tvmpipe.passes.kernels.base import constant_of, is_float32, shape_of
from tvmpipe.passes.kernels.cached_attention.compute import CACHED_ATTENTION, CachedAttention, cached_attention
from tvmpipe.passes.kernels.state_write import IN_PLACE
from tvmpipe.passes.rewrite.attention_scores import scores_behind
from tvmpipe.passes.rewrite.write_states import length_of

_MOVES = frozenset(("relax.broadcast_to", "relax.expand_dims", "relax.permute_dims", "relax.reshape", "relax.squeeze"))


def find_cached_attention(module: Any) -> Any:
    """`module` with the attention in `main` over states that grow as calls of one function each.

    ::

        keys = R.call_tir_inplace(state_write, ...)     # [1, groups, context, depth], values likewise
        a = R.matmul(query, moved(keys))                # repeated for heads that share them, transposed, scaled
        b = R.add(R.multiply(a, scale), mask)           # and divide, by constants, in any number; masks in any number
        c = R.nn.softmax(b, axis=-1)
        d = R.where(R.isnan(c), 0, c)                   # perhaps
        y = R.matmul(d, moved(values))
        ->
        y = R.call_tir(cached_attention, (query, keys, values, mask, length), ...)
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    length = length_of(module)
    if length is None:
        return module
    matcher = _Matcher(definitions_of(module)[0])

    @mutator
    class Fuser(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            found = matcher.match(call) if operator_name(call) == "relax.matmul" and is_float32(*call.args) else None
            if found is None:
                return super().visit_call_(call)
            function = self.builder_.add_func(cached_attention(found.attention), CACHED_ATTENTION)
            tensors = [self.visit_expr(one) for one in (found.query, found.key, found.value, *found.masks, length)]
            return relax.op.call_tir(function, relax.Tuple(tensors), call.ty)

    return relax.transform.DeadCodeElimination()(mutated(Fuser(module), module))


@dataclass(frozen=True)
class _Found:
    attention: CachedAttention
    query: Any
    key: Any
    value: Any
    masks: tuple[Any, ...]


@dataclass(frozen=True)
class _Moved:
    """A tensor that holds elements of a state times `factor`: `source` says which, by their places in memory.

    A step has written `step` of them.
    """

    state: Any
    step: int
    source: NDArray[np.int64]
    factor: float


class _Matcher:
    def __init__(self, definition: Mapping[Any, Any]) -> None:
        self._definition = definition

    def match(self, product: Any) -> _Found | None:
        """What ends in a matmul, if that is attention over states."""
        weights, safe = self._without_nan(product.args[0])
        softmax = self._made_by(weights, "relax.nn.softmax")
        if softmax is None or int(softmax.attrs.axis) not in (-1, len(shape_of(softmax)) - 1):
            return None
        values = self._moved(product.args[1])
        chain = scores_behind(softmax.args[0], self._made_by)
        if values is None or chain is None:
            return None
        scores, scale, masks = chain
        keys = self._moved(scores.args[1])
        if keys is None or keys.state.same_as(values.state):
            return None
        query = scores.args[0]
        *outer, heads, rows, depth = shape_of(query)
        width, context = shape_of(product.args[1])[-1], shape_of(product.args[1])[-2]
        groups = _groups(keys, values, heads, context, depth, width)
        cached = len(shape_of(keys.state)) - 3
        fitting = all(_broadcasts(shape_of(mask), (heads, rows, context)) for mask in masks)
        if groups is None or math.prod(outer) != 1 or not fitting or values.factor != 1.0:
            return None
        shapes = tuple(tuple(map(int, shape_of(mask))) for mask in masks)
        axes = len(outer), cached
        attention = CachedAttention(
            heads, groups, rows, keys.step, depth, width, context, scale * keys.factor, shapes, safe, axes
        )
        return _Found(attention, query, keys.state, values.state, tuple(masks))

    def _made_by(self, variable: Any, *operators: str) -> Any:
        call = self._definition.get(variable)
        return call if operator_name(call) in operators else None

    def _without_nan(self, weights: Any) -> tuple[Any, bool]:
        """What stands behind `where(isnan(x), 0, x)`, and whether it stands there."""
        where = self._made_by(weights, "relax.where")
        if where is None:
            return weights, False
        condition = self._made_by(where.args[0], "relax.isnan")
        zero = constant_of(where.args[1])
        if condition is None or not condition.args[0].same_as(where.args[2]) or zero is None or zero.any():
            return weights, False
        return where.args[2], True

    def _moved(self, variable: Any) -> _Moved | None:
        """Where the elements of a tensor lie in a state that was written into, if they only moved since."""
        moves, factor = [], 1.0
        while True:
            call: Any = self._definition.get(variable)
            name = operator_name(call)
            if name == IN_PLACE:
                break
            if name == "relax.multiply":
                number = constant_of(call.args[1])
                if number is None or number.size != 1:
                    return None
                factor *= float(number.reshape(-1)[0])
            elif name not in _MOVES:
                return None
            else:
                moves.append(call)
            variable = call.args[0]
        shape = shape_of(variable)
        source = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        for call in reversed(moves):
            if operator_name(call) == "relax.permute_dims":
                axes = None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
                source = np.transpose(source, axes)
            elif operator_name(call) == "relax.broadcast_to":
                source = np.broadcast_to(source, shape_of(call))
            else:
                source = source.reshape(shape_of(call))
        new = self._definition[variable].args[1].fields[1]
        (axis,) = [place for place, (a, b) in enumerate(zip(shape, shape_of(new), strict=True)) if a != b] or [-2]
        return _Moved(variable, shape_of(new)[axis], source, factor)


def _groups(keys: _Moved, values: _Moved, heads: int, context: int, depth: int, width: int) -> int | None:
    """How many heads of keys and values there are, of which each serves as many of queries; None for other layouts."""
    *outer, groups, have, inner = shape_of(keys.state)
    if math.prod(outer) != 1 or have != context or inner != depth or heads % groups:
        return None
    if shape_of(values.state) != (*outer, groups, context, width):
        return None
    if keys.source.size != heads * depth * context or values.source.size != heads * context * width:
        return None
    own = np.arange(groups * context * depth, dtype=np.int64).reshape(groups, context, depth)
    wanted = np.repeat(own, heads // groups, axis=0).transpose(0, 2, 1)
    if not np.array_equal(keys.source.reshape(heads, depth, context), wanted):
        return None
    own = np.arange(groups * context * width, dtype=np.int64).reshape(groups, context, width)
    wanted = np.repeat(own, heads // groups, axis=0)
    return groups if np.array_equal(values.source.reshape(heads, context, width), wanted) else None


def _broadcasts(shape: Sequence[int], whole: Sequence[int]) -> bool:
    missing = len(shape) - len(whole)
    if any(extent != 1 for extent in shape[: max(missing, 0)]):
        return False
    inner = shape[max(missing, 0) :]
    return all(have in (1, want) for have, want in zip(inner, whole[len(whole) - len(inner) :], strict=True))
