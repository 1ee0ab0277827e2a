"""A model whose states grow, as one with buffers for them: rewritten for each bucket, and tried in ONNX Runtime."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tvmpipe.equality import Expected
from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.padding import pad
from tvmpipe.passes.frontend.agreement import Model, compare_runs, runnable, seeded_sample
from tvmpipe.passes.frontend.inputs.fix_dimensions import fix_inputs, inputs_of
from tvmpipe.passes.frontend.inputs.open_dimensions import Extent
from tvmpipe.passes.frontend.signature import State
from tvmpipe.passes.frontend.states.fix_capacity import fix_capacity
from tvmpipe.passes.frontend.states.growing import Growing, find_growing
from tvmpipe.passes.frontend.states.probe import LENGTHS, probe
from tvmpipe.passes.frontend.weightless import large_weights, without_weights
from tvmpipe.tensors import TensorSpec

Array = NDArray[Any]

STEPS = (1, 16, 64, 256)
"""Elements that a step has, where nothing is said of them: one is generated at a time, a prompt goes in chunks."""


@dataclass(frozen=True)
class StepPadding:
    """How a step with fewer elements than its bucket fills that: `pads` by input, behind the step along `dimension`.

    `axes` are names of the dimensions of inputs.
    """

    dimension: str
    axes: Mapping[str, tuple[str, ...]]
    pads: Mapping[str, float]

    def smaller(self, spec: TensorSpec, count: int) -> TensorSpec:
        """What is given of an input for so many elements."""
        names = self.axes.get(spec.name, ("",) * len(spec.shape))
        shape = tuple(count if n == self.dimension else e for n, e in zip(names, spec.shape, strict=True))
        return spec.model_copy(update={"shape": shape})


@dataclass(frozen=True)
class GrowingModel:
    """A model as it was given, and what of it grows."""

    model: onnx.ModelProto
    growing: Growing

    def facing(self) -> onnx.ModelProto:
        """The model's outline with the inputs that its users give; its nodes are not those that go with them."""
        model = _copied(self._outline)
        inputs = [value for value in model.graph.input if value.name not in self.growing.told]
        kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        self._set(model, self.growing.context, 0)
        return model

    def default_steps(self, named: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Buckets for the dimension that is a step's elements, where it is open and not among those `named`."""
        own = self._own(self.model)
        dims = own[0].type.tensor_type.shape.dim if own else []
        name = dims[1].dim_param if len(dims) > 1 else ""
        if not name or name in named:
            return {}
        return {name: tuple(step for step in STEPS if step <= self.growing.context)}

    def bucket(
        self, shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, int]
    ) -> tuple[onnx.ModelProto, tuple[State, ...]]:
        """The model with buffers and its states, for these extents of the inputs that its users give.

        Raises UnsupportedModelError where that cannot be, with the reason.
        """
        samples, step = [], 1
        for length in LENGTHS:
            inputs, step = self._at(length, shapes, dims)
            samples.append(self._sample(inputs, length, step, seed=0))
        facts = probe(self.model, samples)
        model = _copied(self.model)
        self._fix(model, LENGTHS[-1], step, shapes, dims)
        why = ""
        for masked in (False, True):
            made, states = fix_capacity(model, self.growing, facts, step, masked=masked)
            found = self._difference(runnable(made), shapes, dims)
            if found is None:
                return made, states
            why = why or found
        raise UnsupportedModelError(
            f"with buffers of {self.growing.context} elements for its states the model computes something else "
            f"({why}); --no-state compiles it without states"
        )

    def padding_refused(
        self,
        made: onnx.ModelProto,
        shapes: Mapping[str, tuple[int, ...]],
        dims: Mapping[str, int],
        padding: StepPadding,
    ) -> str | None:
        """Why steps of fewer elements cannot be padded to those that `made` is for (see `bucket`); None where they can.

        What a step is padded with is in the buffers then, behind the sequence's end, where the next one writes.
        """
        _, step = self._at(LENGTHS[0], shapes, dims)
        changed = runnable(made)
        for count in sorted({step - 1, (step + 1) // 2, 1} - {0, step}, reverse=True):
            found = self._difference(changed, shapes, dims, count, padding)
            if found is not None:
                return f"a step of {count} padded to {step} gives other results: {found}"
        return None

    @functools.cached_property
    def _original(self) -> Model:
        """The model as it was given, which every bucket is compared with."""
        return runnable(self.model)

    @functools.cached_property
    def _outline(self) -> onnx.ModelProto:
        """The model with its large weights' shapes alone: what it is asked for extents and inputs, many times."""
        large = large_weights(self.model)
        outline = without_weights(self.model, large)
        given = [value for value in outline.graph.input if value.name not in large]
        del outline.graph.input[:]
        outline.graph.input.extend(given)
        outline.graph.initializer.extend(
            onnx.TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims) for name, tensor in large.items()
        )
        return outline

    # -- models with extents -------------------------------------------------------------------------------------

    def _own(self, model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
        """Inputs that are no states and not told, those with a step's elements first."""
        others = [one for one in inputs_of(model) if one.name not in self.growing.names.union(self.growing.told)]
        return sorted(others, key=lambda value: len(value.type.tensor_type.shape.dim) < 2)

    def _set(self, model: onnx.ModelProto, past: int, step: int) -> None:
        """Write extents into the inputs that follow the length."""
        axes = {state.name: state.axis or 0 for state in self.growing.states}
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            for dim in dims:
                if dim.dim_param and dim.dim_param in self.growing.batch:
                    dim.dim_value = 1
            if value.name in axes:
                dims[axes[value.name]].dim_value = past
                if dims[0].dim_value < 1:
                    dims[0].dim_value = 1
            what = self.growing.told.get(value.name)
            if what is None:
                continue
            for place, dim in enumerate(dims):
                extent = past + step if what == "mask" else step if what == "positions" else 1
                dim.dim_value = extent if place == len(dims) - 1 else 1

    def _at(
        self, length: int, shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, int]
    ) -> tuple[tuple[TensorSpec, ...], int]:
        """Inputs of the model where states have so many elements, and the elements of a step."""
        model = self.facing()
        specs = {spec.name: spec for spec in fix_inputs(model, shapes, dims)}
        own = self._own(model)
        extents = specs[own[0].name].shape if own else ()
        step = extents[1] if len(extents) > 1 else 1
        return self._fix(_copied(self._outline), length, step, shapes, dims), step

    def _fix(
        self,
        model: onnx.ModelProto,
        length: int,
        step: int,
        shapes: Mapping[str, tuple[int, ...]],
        dims: Mapping[str, int],
    ) -> tuple[TensorSpec, ...]:
        """Write all extents into the inputs of a model, or its outline; returns these inputs."""
        self._set(model, length, step)
        return fix_inputs(model, {n: s for n, s in shapes.items() if n not in self.growing.names}, dims)

    def _sample(self, inputs: Sequence[TensorSpec], length: int, step: int, seed: int) -> dict[str, Array]:
        """Seeded content, and what a step is told."""
        sample = dict(seeded_sample([spec for spec in inputs if spec.name not in self.growing.told], seed))
        for spec in inputs:
            what = self.growing.told.get(spec.name)
            if what == "positions":
                sample[spec.name] = np.arange(length, length + step, dtype=spec.dtype).reshape(spec.shape)
            elif what is not None:
                number = {"mask": 1, "last": length + step - 1, "total": length + step}[what]
                sample[spec.name] = np.full(spec.shape, number, spec.dtype)
        return sample

    # -- whether it is the same ----------------------------------------------------------------------------------

    def _difference(
        self,
        changed: Model,
        shapes: Mapping[str, tuple[int, ...]],
        dims: Mapping[str, int],
        count: int | None = None,
        padding: StepPadding | None = None,
    ) -> str | None:
        """How what `changed` computes differs at the start of a sequence, further on, and where it ends; None: nowhere.

        With `padding` only `count` elements of a step are given.
        """
        original = self._original
        names = [value.name for value in self.model.graph.output]
        grown = {state.output: state for state in self.growing.states}
        buffers = {state.name: state.axis or 0 for state in self.growing.states}
        _, step = self._at(LENGTHS[0], shapes, dims)
        count = count or step
        shown = False
        for seed, length in enumerate(
            dict.fromkeys((0, min(LENGTHS[1], self.growing.context - step), self.growing.context - step))
        ):
            whole, _ = self._at(max(length, 1), shapes, dims)
            inputs = [self._of_length(spec, length, count) for spec in whole]
            if padding is not None:
                inputs = [padding.smaller(spec, count) for spec in inputs]
            sample = self._sample(inputs, length, count, seed)
            try:
                answers = dict(zip(names, original.run(sample), strict=True))
            except Exception as error:  # noqa: BLE001  # its exceptions have no common base
                if length:
                    raise UnsupportedModelError(f"ONNX Runtime does not run a step ({reason_of(error)})") from None
                continue  # some models take no empty past
            given = {name: array for name, array in sample.items() if name not in self.growing.told}
            if padding is not None:
                full = {spec.name: spec.shape for spec in whole if spec.name not in buffers}
                given |= {
                    name: pad(given[name], full[name], padding.pads[name]) for name in given.keys() & padding.pads
                }
            for name, axis in buffers.items():
                given[name] = _buffered(given[name], axis, self.growing.context, seed)
            given[self.growing.length] = np.array(length, np.int64)
            try:
                results = dict(zip(names, changed.run(given), strict=True))
            except Exception as error:  # noqa: BLE001
                return f"ONNX Runtime does not run it: {reason_of(error)}"
            for name, state in grown.items():
                results[name] = np.take(results[name], range(length + count), axis=state.axis or 0)
            if padding is not None:
                results = {name: array[tuple(map(slice, answers[name].shape))] for name, array in results.items()}
            expected = Expected(answers, half=original.half)
            found = compare_runs(original, sample, expected, results)
            if found.verdict == "different":
                return f"after {length} elements, {found.sentence}"
            shown = True
        return None if shown else "no step of it could be run"

    def _of_length(self, spec: TensorSpec, length: int, step: int) -> TensorSpec:
        axes = {state.name: state.axis or 0 for state in self.growing.states}
        shape = list(spec.shape)
        if spec.name in axes:
            shape[axes[spec.name]] = length
        elif self.growing.told.get(spec.name) == "mask":
            shape[-1] = length + step
        elif self.growing.told.get(spec.name) == "positions":
            shape[-1] = step
        return spec.model_copy(update={"shape": tuple(shape)})


def growing_model(
    model: onnx.ModelProto,
    states: Sequence[State],
    context: int | None,
    shapes: Mapping[str, Sequence[Extent]],
    dims: Collection[str],
) -> GrowingModel | None:
    """The model with the states of it that grow; None where none does. `dims` are names that the user gives extents.

    Raises InputError as `find_growing` does.
    """
    params = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in inputs_of(model)}
    growing = find_growing(model, states, context, lambda name, axis: name in shapes or params[name][axis] in dims)
    return None if growing is None else GrowingModel(_copied(model), growing)


def _buffered(past: Array, axis: int, context: int, seed: int) -> Array:
    """A buffer with the past at its beginning, and behind it what another sequence might have left."""
    shape = list(past.shape)
    shape[axis] = context - past.shape[axis]
    rest = np.random.default_rng([seed, axis]).standard_normal(shape).astype(past.dtype)
    return np.concatenate((past, rest), axis)


def with_adds(states: Sequence[State], grown: Sequence[State]) -> tuple[State, ...]:
    """States with what a step adds to those that grow."""
    known = {state.name: state for state in grown}
    return tuple(replace(known[state.name]) if state.name in known else state for state in states)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
