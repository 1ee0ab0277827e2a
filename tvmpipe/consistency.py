"""Whether the parts of a manifest fit each other: what is named exists, and tensors are made before they are read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from tvmpipe.manifest import HEAD, FileEntry, Manifest, PlanEntry, StageEntry, Turn
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
    yield from _model(manifest)
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
        **{manifest.model_inputs[spec.name]: spec for spec in manifest.model.inputs},
        **{manifest.model_outputs[spec.name]: spec for spec in manifest.model.outputs},
    }
    for number, plan in enumerate(manifest.plans):
        where = f"in plan {number}"
        if plan.lost is not None and plan.lost not in known:
            yield f"{where} does without {_show(plan.lost)}, which is no device"
        if plan.lost is not None and plan.lost in plan.devices:
            yield f"{where} uses the lost device {_show(plan.lost)}"
        yield from (f"{where} {fault}" for fault in _plan(manifest, plan, known, specs))
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
    for stage in (stage for plan in manifest.plans for stage in plan.stages):
        for entry in (stage.library, *stage.weight_files):
            yield from _listed(paths, entry)


def _listed(paths: dict[str, FileEntry], entry: FileEntry) -> Iterator[str]:
    if entry.path not in paths:
        yield f"uses {_show(entry.path)}, which it does not list"
    elif paths[entry.path] != entry:
        yield f"says two different things of {_show(entry.path)}"


def _model(manifest: Manifest) -> Iterator[str]:
    for what, specs, values in (
        ("input", manifest.model.inputs, manifest.model_inputs),
        ("output", manifest.model.outputs, manifest.model_outputs),
    ):
        names = [spec.name for spec in specs]
        yield from (f"names the {what} {_show(name)} twice" for name in _repeated(names))
        for name in sorted({*names} ^ {*values}):
            yield (
                f"has no tensor for the {what} {_show(name)}"
                if name in names
                else (f"has a tensor for the {what} {_show(name)}, which the model has not")
            )
    yield from (f"has two inputs for tensor {value}" for value in _repeated(manifest.model_inputs.values()))
    given = {manifest.model_inputs[spec.name]: spec for spec in manifest.model.inputs}
    for spec in manifest.model.outputs:
        same = given.get(manifest.model_outputs[spec.name], spec)
        if (same.shape, same.dtype) != (spec.shape, spec.dtype):
            yield f"says that the output {_show(spec.name)} is the input {_show(same.name)}, of another shape or type"


def _plan(manifest: Manifest, plan: PlanEntry, devices: set[str], specs: dict[int, TensorSpec]) -> Iterator[str]:
    if not plan.stages:
        yield "there is no stage"
    yield from (f"there are two stages {_show(name)}" for name in _repeated(stage.name for stage in plan.stages))
    known = dict(specs)
    makers: dict[int, list[StageEntry]] = {value: [] for value in manifest.model_inputs.values()}
    for stage in plan.stages:
        yield from (f"stage {_show(stage.name)} {fault}" for fault in _stage(stage, devices, makers, known))
        for tensor in stage.outputs:
            makers.setdefault(tensor.value, []).append(stage)
    for name, value in manifest.model_outputs.items():
        if value not in makers:
            yield f"nothing makes the output {_show(name)}"
    for value, made in makers.items():
        if made and not _complete(made):
            yield f"some batches have nobody to make tensor {value}"
        given = value in manifest.model_inputs.values()
        if (made and given) or any(one.turn.meets(other.turn) for one, other in itertools.combinations(made, 2)):
            yield f"tensor {value} is made twice for the same batch"
    turns = {(stage.device, stage.turn.place, stage.turn.of) for stage in plan.stages}
    for name in _repeated(device for device, _, _ in turns):
        yield f"the stages of {_show(name)} have different turns"
    for link in plan.links:
        for end in (link.sender, link.receiver):
            if end != HEAD and end not in devices:
                yield f"a link ends at {_show(end)}, which is no device"
    yield from _routes(manifest, plan)


def _routes(manifest: Manifest, plan: PlanEntry) -> Iterator[str]:
    """Links carry what one end makes and the other needs, and all of it."""
    makes: dict[str, set[int]] = {HEAD: set(manifest.model_inputs.values())}
    reads: dict[str, set[int]] = {HEAD: set(manifest.model_outputs.values())}
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
    stage: StageEntry, devices: set[str], makers: dict[int, list[StageEntry]], known: dict[int, TensorSpec]
) -> Iterator[str]:
    """`known` gets what the stage says of tensors that nobody before it spoke of."""
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
    for tensor in (*stage.inputs, *stage.outputs):
        spec = known.setdefault(tensor.value, tensor.spec)
        if (spec.shape, spec.dtype) != (tensor.spec.shape, tensor.spec.dtype):
            yield f"says that tensor {tensor.value} is {_show(str(tensor.spec))}, elsewhere it is {_show(str(spec))}"


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
