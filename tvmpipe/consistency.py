"""Whether the parts of a manifest fit each other: what is named exists, and tensors are made before they are read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from tvmpipe.manifest import HEAD, BucketEntry, FileEntry, Manifest, PlanEntry, StageEntry, Turn
from tvmpipe.tensors import TensorSpec

_Thing = TypeVar("_Thing", bound=Hashable)
_SHOWN = 80  # characters of a name in a sentence


def inconsistency(manifest: Manifest) -> str | None:
    """What is wrong, as the end of a sentence about the manifest; None when nothing is."""
    return next(_faults(manifest), None)


def _faults(manifest: Manifest) -> Iterator[str]:
    yield from _files(manifest)
    devices = [device.name for device in manifest.devices]
    yield from (f"names the device {_show(name)} twice" for name in _repeated(devices))
    if HEAD in devices:
        yield f"has a device called {HEAD!r}, which is the process that submits samples"
    buckets = manifest.buckets
    yield from _buckets(manifest, buckets)
    if not manifest.plans:
        yield "has no plan"
        return
    if manifest.plan.lost is not None:
        yield "begins with a plan for a loss"
    lost = [plan.lost for plan in manifest.plans[1:]]
    if None in lost:
        yield "has two plans to start with"
    yield from (f"has two plans for the loss of {_show(name)}" for name in _repeated(lost))
    known = set(devices)
    specs = {
        values[spec.name]: spec
        for bucket in buckets
        for values, given in ((bucket.model_inputs, bucket.inputs), (bucket.model_outputs, bucket.outputs))
        for spec in given
    }
    states = _StateValues(manifest)
    specs |= states.specs
    yield from _sequences(manifest, buckets)
    for number, plan in enumerate(manifest.plans):
        where = f"in plan {number}"
        if plan.lost is not None and plan.lost not in known:
            yield f"{where} does without {_show(plan.lost)}, which is no device"
        if plan.lost is not None and plan.lost in plan.devices:
            yield f"{where} uses the lost device {_show(plan.lost)}"
        yield from (f"{where} {fault}" for fault in _plan(plan, buckets, known, specs, states))
    if manifest.code is not None:
        stages = {stage.name for plan in manifest.plans for stage in plan.stages}
        for name in manifest.code.calls:
            if name not in stages:
                yield f"says what stage {_show(name)} calls, which there is not"
        if "apache-tvm" not in manifest.tools:
            yield "does not say of which TVM its code is"


def _files(manifest: Manifest) -> Iterator[str]:
    paths = {entry.path: entry for entry in manifest.files}
    yield from (f"lists {_show(path)} twice" for path in _repeated(entry.path for entry in manifest.files))
    for path in paths:
        above = path.split("/")[:-1]
        for count in range(1, len(above) + 1):
            folder = "/".join(above[:count])
            if folder in paths:
                yield f"lists {_show(folder)} as a file and as a folder"
    if manifest.elastic is not None:
        yield from _listed(paths, manifest.elastic)
    for stage in (stage for plan in manifest.plans for stage in plan.stages):
        for entry in (stage.library, *stage.weight_files):
            yield from _listed(paths, entry)


def _listed(paths: dict[str, FileEntry], entry: FileEntry) -> Iterator[str]:
    if entry.path not in paths:
        yield f"uses {_show(entry.path)}, which it does not list"
    elif paths[entry.path] != entry:
        yield f"says two different things of {_show(entry.path)}"


def _buckets(manifest: Manifest, buckets: Sequence[BucketEntry]) -> Iterator[str]:
    """Every bucket is one of the model, with tensors of its own, and its inputs have the extents that it says."""
    signature = [[(spec.name, spec.dtype) for spec in (*one.inputs, *one.outputs)] for one in buckets]
    for number, bucket in enumerate(buckets):
        where = f"in bucket {number} " if number else ""
        yield from (f"{where}{fault}" for fault in _model(bucket))
        if signature[number] != signature[0]:
            yield f"{where}has other inputs and outputs"
        if bucket.extents.keys() != buckets[0].extents.keys():
            yield f"{where}has other open dimensions"
    yield from (f"has two buckets {_show(dict(one))}" for one in _repeated(tuple(b.extents.items()) for b in buckets))
    owners = Counter(value for one in buckets for value in {*one.model_inputs.values(), *one.model_outputs.values()})
    yield from (f"has tensor {value} in two buckets" for value, count in owners.items() if count > 1)
    opened = manifest.open
    if opened is None:
        return
    for place, spec in enumerate(manifest.model.inputs):
        axes = opened.axes.get(spec.name, ("",) * len(spec.shape))
        for number, bucket in enumerate(buckets):
            wanted = [bucket.extents.get(n, -1) if n else e for n, e in zip(axes, spec.shape, strict=False)]
            if len(axes) != len(spec.shape) or list(bucket.inputs[place].shape) != wanted:
                yield f"in bucket {number} has an input {_show(spec.name)} that does not have the bucket's extents"
    for name in opened.pads:
        if name not in opened.axes:
            yield f"pads {_show(name)}, which has no open dimension"
    for name in buckets[0].extents:
        for spec in manifest.model.inputs:
            unpadded = name in opened.axes.get(spec.name, ()) and spec.name not in opened.pads
            if unpadded and any(name not in bucket.exact for bucket in buckets):
                yield f"pads along {_show(name)}, and does not say what {_show(spec.name)} is padded with"


def _model(bucket: BucketEntry) -> Iterator[str]:
    for what, specs, values in (
        ("input", bucket.inputs, bucket.model_inputs),
        ("output", bucket.outputs, bucket.model_outputs),
    ):
        names = [spec.name for spec in specs]
        yield from (f"names the {what} {_show(name)} twice" for name in _repeated(names))
        for name in sorted({*names} ^ {*values}):
            yield (
                f"has no tensor for the {what} {_show(name)}"
                if name in names
                else (f"has a tensor for the {what} {_show(name)}, which the model has not")
            )
    yield from (f"has two inputs for tensor {value}" for value in _repeated(bucket.model_inputs.values()))
    given = {bucket.model_inputs[spec.name]: spec for spec in bucket.inputs}
    for spec in bucket.outputs:
        same = given.get(bucket.model_outputs[spec.name], spec)
        if (same.shape, same.dtype) != (spec.shape, spec.dtype):
            yield f"says that the output {_show(spec.name)} is the input {_show(same.name)}, of another shape or type"


class _StateValues:
    """The tensors of states: `found` by a step and `left` by it, each with its bucket; their specs by value."""

    def __init__(self, manifest: Manifest) -> None:
        states = () if manifest.sequences is None else manifest.sequences.states
        self.pairs = [(state.name, state.values) for state in states]
        self.found = {pair[0]: bucket for _, values in self.pairs for bucket, pair in enumerate(values)}
        self.left = {pair[1]: bucket for _, values in self.pairs for bucket, pair in enumerate(values)}
        self.specs = {value: state.spec for state in states for pair in state.values for value in pair}
        grow = (state for state in states if state.axis is not None)
        self.growing = frozenset(value for state in grow for pair in state.values for value in pair)


def _sequences(manifest: Manifest, buckets: Sequence[BucketEntry]) -> Iterator[str]:
    """Each state is one tensor that a step finds and another one that it leaves, in every bucket."""
    if manifest.sequences is None:
        return
    states, length = manifest.sequences.states, manifest.sequences.length
    if not states:
        yield "has sequences without states"
    yield from (f"has two states {_show(name)}" for name in _repeated(state.name for state in states))
    for state in states:
        where = f"has a state {_show(state.name)}"
        if len(state.values) != len(buckets) or len(state.adds) not in (0, len(buckets)):
            yield f"{where} that does not say its tensors in every bucket"
        if state.axis is not None and (state.axis >= len(state.spec.shape) or not state.adds):
            yield f"{where} that grows along no axis"
        if state.axis is not None and (length is None or manifest.sequences.context is None):
            yield f"{where} that grows, and does not say how far or which input says its length"
    values = [value for state in states for pair in state.values for value in pair]
    found = {pair[0] for state in states for pair in state.values}
    sent = {value for one in buckets for value in (*one.model_inputs.values(), *one.model_outputs.values())}
    sent |= {value for plan in manifest.plans for link in plan.links for value in link.values}
    yield from (f"has two states of tensor {value}" for value in _repeated(values))
    yield from (f"sends tensor {value}, which is a state" for value in sorted(sent & found))
    if length is not None and any(length not in one.model_inputs for one in buckets):
        yield f"gives the length of states to {_show(length)}, which is no input"


def _plan(
    plan: PlanEntry,
    buckets: Sequence[BucketEntry],
    devices: set[str],
    specs: dict[int, TensorSpec],
    states: _StateValues,
) -> Iterator[str]:
    if not plan.stages:
        yield "there is no stage"
    for number in sorted({*range(len(buckets))} - {stage.bucket for stage in plan.stages}):
        yield f"there is no stage of bucket {number}"
    yield from (f"there are two stages {_show(name)}" for name in _repeated(stage.name for stage in plan.stages))
    known = dict(specs)
    given = {value: n for n, bucket in enumerate(buckets) for value in bucket.model_inputs.values()} | states.found
    makers: dict[int, list[StageEntry]] = {value: [] for value in given}
    owner = dict(given)
    for stage in plan.stages:
        yield from (
            f"stage {_show(stage.name)} {fault}" for fault in _stage(stage, devices, makers, known, states.growing)
        )
        if stage.bucket >= len(buckets):
            yield f"stage {_show(stage.name)} is of bucket {stage.bucket}, which there is not"
        for tensor in (*stage.inputs, *stage.outputs):
            if owner.setdefault(tensor.value, stage.bucket) != stage.bucket:
                yield f"stage {_show(stage.name)} has tensor {tensor.value} of another bucket"
        for tensor in stage.outputs:
            makers.setdefault(tensor.value, []).append(stage)
    for bucket in buckets:
        for name, value in bucket.model_outputs.items():
            if value not in makers:
                yield f"nothing makes the output {_show(name)}"
    for value, made in makers.items():
        if made and not _complete(made):
            yield f"some batches have nobody to make tensor {value}"
        if (made and value in given) or any(
            one.turn.meets(other.turn) for one, other in itertools.combinations(made, 2)
        ):
            yield f"tensor {value} is made twice for the same batch"
    users: dict[int, set[str]] = {}
    for stage in plan.stages:
        for tensor in (*stage.inputs, *stage.outputs):
            users.setdefault(tensor.value, set()).add(stage.device)
    for name, pairs in states.pairs:
        places = {device for found, left in pairs for device in (users.get(found, set()) | _makers_of(makers, left))}
        if len(places) > 1:
            yield f"the state {_show(name)} is on {' and '.join(map(_show, sorted(places)))}"
        yield from (f"nothing makes the state {_show(name)}" for _, left in pairs if not makers.get(left))
        if any(stage.turn != Turn() for _, left in pairs for stage in makers.get(left, ())):
            yield f"devices take turns with the state {_show(name)}"
    turns = {(stage.device, stage.turn.place, stage.turn.of) for stage in plan.stages}
    for name in _repeated(device for device, _, _ in turns):
        yield f"the stages of {_show(name)} have different turns"
    for link in plan.links:
        for end in (link.sender, link.receiver):
            if end != HEAD and end not in devices:
                yield f"a link ends at {_show(end)}, which is no device"
    yield from _routes(plan, buckets)


def _routes(plan: PlanEntry, buckets: Sequence[BucketEntry]) -> Iterator[str]:
    """Links carry what one end makes and the other needs, and all of it."""
    makes = {HEAD: {value for bucket in buckets for value in bucket.model_inputs.values()}}
    reads = {HEAD: {value for bucket in buckets for value in bucket.model_outputs.values()}}
    for stage in plan.stages:
        makes.setdefault(stage.device, set()).update(tensor.value for tensor in stage.outputs)
        reads.setdefault(stage.device, set()).update(tensor.value for tensor in stage.inputs)
    turns = {**plan.turns, HEAD: Turn()}
    for sender, receiver in _repeated((link.sender, link.receiver) for link in plan.links):
        yield f"has two links from {_show(sender)} to {_show(receiver)}"
    carried = {(link.sender, link.receiver): link.values for link in plan.links}
    for (sender, receiver), values in carried.items():
        where = f"the link from {_show(sender)} to {_show(receiver)} carries tensor"
        yield from (f"{where} {value} twice" for value in _repeated(values))
        for value in values:
            if value not in makes.get(sender, ()):
                yield f"{where} {value}, which its sender does not make"
            elif value not in reads.get(receiver, set()) - makes.get(receiver, set()):
                yield f"{where} {value}, which its receiver does not need"
            elif not turns[sender].meets(turns[receiver]):
                yield f"{where} {value}, and no batch is for both"
    for receiver, needed in reads.items():
        for sender, made in makes.items():
            if turns[sender].meets(turns[receiver]):
                for value in sorted((needed - makes[receiver]) & made - set(carried.get((sender, receiver), ()))):
                    yield f"no link carries tensor {value} from {_show(sender)} to {_show(receiver)}"


def _stage(
    stage: StageEntry,
    devices: set[str],
    makers: dict[int, list[StageEntry]],
    known: dict[int, TensorSpec],
    growing: frozenset[int],
) -> Iterator[str]:
    """`known` gets what the stage says of tensors that nobody before it spoke of; `growing` are states that grow."""
    if stage.device not in devices:
        yield f"is on {_show(stage.device)}, which is no device"
    if bool(stage.weight_names) != bool(stage.weight_files):
        yield "has weights without files, or files without weights"
    yield from (f"has the weight {_show(name)} twice" for name in _repeated(stage.weight_names))
    for what, tensors in (("reads", stage.inputs), ("makes", stage.outputs)):
        yield from (f"{what} tensor {value} twice" for value in _repeated(tensor.value for tensor in tensors))
    for tensor in stage.inputs:
        if tensor.value not in makers:
            yield f"reads tensor {tensor.value}, which nothing before it makes"
            continue
        made = makers[tensor.value]
        if made and not any(one.turn in (Turn(), stage.turn) for one in made) and not _complete(made):
            yield f"reads tensor {tensor.value}, which nothing before it makes for its batches"
    for value in sorted({*stage.in_place} - ({tensor.value for tensor in stage.inputs} & growing)):
        yield f"writes into tensor {value}, which is no input of it that is a state which grows"
    for tensor in (*stage.inputs, *stage.outputs):
        spec = known.setdefault(tensor.value, tensor.spec)
        if (spec.shape, spec.dtype) != (tensor.spec.shape, tensor.spec.dtype):
            yield f"says that tensor {tensor.value} is {_show(str(tensor.spec))}, elsewhere it is {_show(str(spec))}"


def _makers_of(makers: dict[int, list[StageEntry]], value: int) -> set[str]:
    """Devices that make a tensor."""
    return {stage.device for stage in makers.get(value, ())}


def _complete(made: list[StageEntry]) -> bool:
    """Whether somebody makes the tensor in every turn: one device for all, or all those that take turns."""
    places: dict[int, set[int]] = {}
    for stage in made:
        places.setdefault(stage.turn.of, set()).add(stage.turn.place)
    return any(len(found) == of for of, found in places.items())


def _repeated(things: Iterable[_Thing]) -> list[_Thing]:
    """What is there more than once."""
    return [thing for thing, count in Counter(things).items() if count > 1]


def _show(name: object) -> str:
    text = str(name)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
