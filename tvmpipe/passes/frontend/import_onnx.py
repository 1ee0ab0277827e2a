"""ONNX -> Relax: read, check, fix dimensions, fold constants and shapes, import."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from tvmpipe.errors import InputError, UnsupportedModelError
from tvmpipe.padding import open_axes
from tvmpipe.passes.frontend.arithmetic.element_types import element_of
from tvmpipe.passes.frontend.arithmetic.halves import stored_halves
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.importer import Relax, to_relax
from tvmpipe.passes.frontend.inputs.fix_dimensions import fix_inputs
from tvmpipe.passes.frontend.inputs.fix_values import Array, fix_values
from tvmpipe.passes.frontend.inputs.open_dimensions import check_pads, open_dimensions
from tvmpipe.passes.frontend.inputs.sequences import fix_sequences, spread_outputs
from tvmpipe.passes.frontend.inputs.try_padding import Padding, exact_dimensions
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.frontend.read_model import read_model
from tvmpipe.passes.frontend.signature import Signature, State
from tvmpipe.passes.frontend.simplify import simplify
from tvmpipe.passes.frontend.states.find_states import find_states
from tvmpipe.passes.frontend.states.grow import GrowingModel, StepPadding, growing_model, with_adds
from tvmpipe.passes.frontend.states.head_size import fix_head_sizes
from tvmpipe.passes.frontend.unsupported import DTYPES
from tvmpipe.passes.kernels.half_weights import HALVES_ATTR
from tvmpipe.passes.kernels.state_write import LENGTH
from tvmpipe.tensors import CARRIERS, TensorSpec


@dataclass(frozen=True)
class Imported:
    """A model as a Relax `IRModule`, as its users see it, sentences for the report, and what ONNX Runtime runs.

    `values` are those of inputs of the file that became constants. `extents` are those of its open dimensions, by name;
    `exact` says of those along which no sample may be padded why.
    """

    module: Any
    signature: Signature
    notes: tuple[str, ...]
    values: Mapping[str, Array]
    groups: tuple[FallbackGroup, ...] = ()
    extents: Mapping[str, int] = field(default_factory=dict)
    exact: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportedBuckets:
    """A model in each of its buckets, the largest first, and which dimensions are open.

    `axes` has for each input and output with an open dimension the names of its dimensions, "" for those that are
    fixed; `pads` what inputs are padded with.
    """

    buckets: tuple[Imported, ...]
    axes: Mapping[str, tuple[str, ...]]
    pads: Mapping[str, float]


def import_buckets(source: Any, options: ImportOptions, left: Mapping[str, str] | None = None) -> ImportedBuckets:
    """Read a model, a path or an `onnx.ModelProto`, once, and import it with the extents of each bucket.

    Padding is tried for each bucket. Nodes whose labels are in `left` (label -> why) are left to ONNX Runtime, as are
    those that TVM cannot import. Raises ModelError, UnsupportedModelError and InputError.
    """
    model, name, digest = read_model(source)
    shapes, values = fix_sequences(model, options.shapes, options.values)
    constants = fix_values(model, values)
    states = find_states(model, options.states, by_name=options.stateful)
    fix_head_sizes(model, states, {*options.dims, *options.buckets})
    growing = growing_model(model, states, options.context, shapes, {*options.dims, *options.buckets})
    if growing is not None:
        return _in_steps(growing, states, name, digest, constants, options, left or {})
    dimensions = open_dimensions(model, shapes, options.dims, options.buckets)
    check_pads(options.pads, dimensions)
    imported_as = functools.partial(_imported, states=states, options=options, left=left or {})
    if not dimensions.axes:
        inputs = fix_inputs(model, dimensions.shapes[0], dimensions.dims[0])
        return ImportedBuckets((imported_as(model, name, digest, inputs, constants),), {}, {})
    imported = []
    for extents, fixed, dims_fixed in zip(dimensions.buckets, dimensions.shapes, dimensions.dims, strict=True):
        one = _copied(model)
        inputs = fix_inputs(one, fixed, dims_fixed)
        imported.append(replace(imported_as(one, name, digest, inputs, constants), extents=extents))
    axes = {**dimensions.axes, **_output_axes(imported)}
    padding = Padding(axes, options.pads)
    given = [(one.signature.inputs, one.extents) for one in imported]
    exact = exact_dimensions(model, given, padding, imported[0].signature.outputs)
    return ImportedBuckets(
        tuple(replace(one, exact=reasons) for one, reasons in zip(imported, exact, strict=True)),
        axes,
        options.pads,
    )


def _in_steps(
    model: GrowingModel,
    states: Sequence[State],
    name: str,
    digest: str,
    constants: Mapping[str, Array],
    options: ImportOptions,
    left: Mapping[str, str],
) -> ImportedBuckets:
    """A model whose states grow: a bucket for each number of elements that a step may have."""
    named = {extent for extents in options.shapes.values() for extent in extents if isinstance(extent, str)}
    buckets = {**model.default_steps({*options.dims, *options.buckets, *named}), **options.buckets}
    facing = model.facing()
    dimensions = open_dimensions(facing, options.shapes, options.dims, buckets)
    check_pads(options.pads, dimensions)
    # A step is padded with what no later one reads, so that any number does.
    pads = {**dict.fromkeys(dimensions.axes, 0.0), **options.pads}
    imported = []
    for extents, fixed, dims in zip(dimensions.buckets, dimensions.shapes, dimensions.dims, strict=True):
        one, grown = model.bucket(fixed, dims)
        mine = with_adds(states, grown)
        room = model.growing.context - max(state.adds for state in grown)
        inputs = tuple(
            spec.model_copy(update={"below": room + 1}) if spec.name == model.growing.length else spec
            for spec in fix_inputs(one, {}, {})
        )
        made = _imported(one, name, digest, inputs, constants, states=mine, options=options, left=left)
        signature = replace(made.signature, length=model.growing.length, context=model.growing.context)
        main = made.module["main"]
        place = list(map(str, main.attrs["tvmpipe.inputs"])).index(model.growing.length)
        made.module["main"] = main.with_attr(LENGTH, place)
        exact = dict.fromkeys(extents, "a step has as many elements as its bucket")
        if len(extents) == 1:
            (dimension,) = extents
            why = model.padding_refused(one, fixed, dims, StepPadding(dimension, dimensions.axes, pads))
            exact = {} if why is None else {dimension: why}
        imported.append(replace(made, signature=signature, extents=extents, exact=exact))
    axes = {**dimensions.axes, **_output_axes(imported)} if dimensions.axes else {}
    return ImportedBuckets(tuple(imported), axes, pads)


def _output_axes(buckets: Sequence[Imported]) -> dict[str, tuple[str, ...]]:
    extents = [one.extents for one in buckets]
    shapes = {
        spec.name: [one.signature.outputs[place].shape for one in buckets]
        for place, spec in enumerate(buckets[0].signature.outputs)
    }
    axes = {name: open_axes(mine, extents) for name, mine in shapes.items()}
    for spec in buckets[0].signature.outputs:  # an axis that data decides on is no dimension of the inputs
        axes[spec.name] = tuple("" if axis in spec.open else name for axis, name in enumerate(axes[spec.name]))
    return {name: names for name, names in axes.items() if any(names)}


def import_onnx(
    source: Any,
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    values: Mapping[str, Any] | None = None,
    *,
    fallback: bool = False,
) -> Imported:
    """As `import_buckets`, a model with one extent for each of its dimensions."""
    options = ImportOptions(shapes=shapes, dims=dims, values=values or {}, fallback=fallback)
    (imported,) = import_buckets(source, options).buckets
    return imported


def _imported(
    model: onnx.ModelProto,
    name: str,
    digest: str,
    inputs: tuple[TensorSpec, ...],
    fixed: Mapping[str, Array],
    *,
    states: Sequence[State],
    options: ImportOptions,
    left: Mapping[str, str],
) -> Imported:
    """Import a model whose inputs are fixed; `model` is changed."""
    halves = stored_halves(model)
    forget_declared(model)
    spread_outputs(model)
    simplified = simplify(model, inputs)
    made = to_relax(simplified, inputs, fallback=options.fallback, left=left)
    module = made.module
    outputs = _output_specs(made, simplified.model.graph)
    kept = [value.name for value in simplified.model.graph.input]
    states, more = _checked(states, inputs, outputs, kept, options)
    signature = Signature(name, digest, inputs, outputs, states, sequences=options.sequences)
    module["main"] = module["main"].with_attr("tvmpipe.inputs", kept)
    if halves:
        module["main"] = module["main"].with_attr(HALVES_ATTR, list(halves))
    return Imported(module, signature, (*simplified.notes, *more), fixed, made.groups)


def _checked(
    states: Sequence[State],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    kept: Sequence[str],
    options: ImportOptions,
) -> tuple[tuple[State, ...], list[str]]:
    """Those whose output is as their input, and sentences on the others: what names alone tell may be wrong.

    `kept` are the inputs that something reads. Raises InputError for one that the user said.
    """
    found, notes = [], []
    given, made = {spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs}
    for state in states:
        old, new = given[state.name], made[state.output]
        if (old.shape, old.dtype, old.element) == (new.shape, new.dtype, new.element) and state.name in kept:
            found.append(state)
            continue
        why = f"output {new} is not as input {old}" if state.name in kept else f"nothing reads input {state.name!r}"
        if state.output in options.states:
            raise InputError(f"--state {state.output}={state.name} cannot be: {why}")
        notes.append(f"{state.output!r} does not become {state.name!r} of a next step: {why}")
    return tuple(found), notes


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def forget_declared(model: onnx.ModelProto) -> None:
    """Drop what the file says of shapes behind its inputs: some exporters declare false ones, and ours are inferred.

    The types of elements stay, which no file may leave out.
    """
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _output_specs(made: Relax, graph: onnx.GraphProto) -> tuple[TensorSpec, ...]:
    """Names, shapes and dtypes of what `main` returns, which must be what ONNX infers of the outputs where it does."""
    from tvm import relax

    by_onnxruntime = {spec.name: spec for group in made.groups for spec in group.outputs}
    returned = made.module["main"].ret_ty
    types = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    if len(types) != len(graph.output):
        raise UnsupportedModelError(f"TVM imports {len(types)} outputs where the model has {len(graph.output)}")
    specs = []
    for ty, output in zip(types, graph.output, strict=True):
        if output.name in by_onnxruntime:
            specs.append(by_onnxruntime[output.name])
            continue
        spec = tensor_spec(ty, output.name)
        inferred = output.type.tensor_type
        dims = [dim.dim_value for dim in inferred.shape.dim]
        same = len(dims) == len(spec.shape) and all(d < 1 or d == s for d, s in zip(dims, spec.shape, strict=True))
        if inferred.HasField("shape") and not same:
            raise UnsupportedModelError(
                f"TVM computes output {output.name!r} with shape {list(spec.shape)}, and ONNX infers {dims}"
            )
        element = element_of(inferred.elem_type) if inferred.elem_type else spec.dtype
        specs.append(spec.model_copy(update={"element": element}) if element in CARRIERS else spec)
    return tuple(specs)


def tensor_spec(ty: Any, name: str) -> TensorSpec:
    """The spec of a Relax tensor type. Raises UnsupportedModelError unless its shape is static."""
    from tvm import relax, tirx

    if not isinstance(ty, relax.TensorType):
        kind = "a shape" if isinstance(ty, relax.ShapeType) else "a tuple or an object"
        raise UnsupportedModelError(f"{name} is {kind} and not a tensor; it cannot be compiled")
    if not isinstance(ty.shape, relax.ShapeExpr) or not all(isinstance(d, tirx.IntImm) for d in ty.shape.values):
        raise UnsupportedModelError(f"the shape of {name} depends on the data; only static shapes can be compiled")
    if str(ty.dtype) not in DTYPES:
        raise UnsupportedModelError(f"{name} has elements of type {ty.dtype}; allowed: {', '.join(sorted(DTYPES))}")
    return TensorSpec(name=name, shape=tuple(int(d) for d in ty.shape.values), dtype=str(ty.dtype))
