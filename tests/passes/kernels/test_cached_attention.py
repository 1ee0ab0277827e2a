"""Attention over a cache that is partly filled, and writes into one: what numpy answers, and nothing behind the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmpipe.passes.kernels.cached_attention.compute import CachedAttention, cached_attention
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.passes.kernels.state_write import state_write
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu


def built(function: Any) -> Callable[..., None]:
    """The function as it runs here, on numpy arrays, which it changes."""
    target = find_target("native")
    scheduled = schedule_function(function, describe_cpu(target, 1)).with_attr("global_symbol", "main")
    compiled = tvm.compile(tvm.IRModule({"main": scheduled}), target.tvm_target(1))

    def run(*arrays: Any) -> None:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        compiled["main"](*tensors)
        for array, tensor in zip(arrays, tensors, strict=True):
            array[...] = tensor.numpy()

    return run


def reference(a: CachedAttention, query: Any, key: Any, value: Any, masks: list[Any], length: int) -> Any:
    """The attention in float64."""
    end = length + a.step
    heads = [np.repeat(one.astype(np.float64)[:, :end], a.heads // a.groups, axis=0) for one in (key, value)]
    scores = query.astype(np.float64) @ heads[0].transpose(0, 2, 1) * a.scale
    for mask in masks:
        scores = scores + np.broadcast_to(mask.reshape(mask.shape[-3:]), (a.heads, a.step, a.context))[:, :, :end]
    with np.errstate(invalid="ignore"):
        power = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e30))
        weights = power / power.sum(-1, keepdims=True)
    return np.where(np.isnan(weights), 0, weights) @ heads[1]


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_only_what_there_is_counts(data: st.DataObject) -> None:
    draw = data.draw
    groups, each, step = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5]))
    depth, width = draw(st.sampled_from([4, 16, 20, 64])), draw(st.sampled_from([4, 16, 24, 80]))
    context, heads = step + draw(st.integers(0, 150)), groups * each
    shapes = draw(
        st.lists(st.sampled_from([(step, context), (1, 1, step, context), (heads, 1, context), (context,)]), max_size=2)
    )
    outer = (draw(st.integers(0, 1)), draw(st.integers(0, 1)))
    a = CachedAttention(heads, groups, step, step, depth, width, context, 0.3, tuple(shapes), True, outer)
    run = built(cached_attention(a))
    random = np.random.default_rng(draw(st.integers(0, 99)))

    def normal(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    for length in {0, draw(st.integers(0, context - step)), context - step}:
        query, key, value = normal(heads, step, depth), normal(groups, context, depth), normal(groups, context, width)
        masks = [np.where(normal(*shape) > -0.5, normal(*shape), -np.inf).astype(np.float32) for shape in shapes]
        wanted = reference(a, query, key, value, masks, length)
        for array in (key, value):  # what is behind the end is another sequence's
            array[:, length + step :] = np.nan
        for mask in masks:
            mask[..., length + step :] = np.nan
        given_arrays = [query.reshape((1,) * outer[0] + query.shape)]
        given_arrays += [one.reshape((1,) * outer[1] + one.shape) for one in (key, value)]
        result = np.full((1,) * outer[0] + wanted.shape, 7, np.float32)
        run(*given_arrays, *masks, np.array(length, np.int64), result)
        np.testing.assert_allclose(result.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)


def test_without_zeros_for_what_sees_nothing_it_is_nan_as_softmax_has_it() -> None:
    a = CachedAttention(1, 1, 1, 1, 16, 16, 4, 1.0, ((1, 4),), False)
    result = np.zeros((1, 1, 16), np.float32)
    ones = np.ones((1, 4, 16), np.float32)
    built(cached_attention(a))(ones[:, :1], ones, ones, np.full((1, 4), -np.inf, np.float32), np.array(2), result)
    assert np.isnan(result).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_write_changes_a_steps_places_alone(axis: int, dtype: str) -> None:
    shape, step = [3, 5, 4], 2
    fresh = [*shape[:axis], step, *shape[axis + 1 :]]
    run = built(state_write(shape, axis, step, dtype))
    random = np.random.default_rng(0)
    for length, begin in ((0, 0), (1, 1), (shape[axis] - step, shape[axis] - step), (99, shape[axis] - step), (-3, 0)):
        buffer = random.integers(-9, 9, shape).astype(dtype)
        new = random.integers(-9, 9, fresh).astype(dtype)
        wanted = buffer.copy()
        wanted[(slice(None),) * axis + (slice(begin, begin + step),)] = new
        run(buffer, new, np.array(length))
        np.testing.assert_array_equal(buffer, wanted)
