"""A random model compiled and run, and each of its results compared."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from onnx import numpy_helper

from benchmarks.random_graphs.graphs import Answer, RandomModel, assembled
from benchmarks.random_graphs.judges import answers
from benchmarks.random_graphs.pool import Array
from benchmarks.two_devices import cut_in_two
from tvmpipe.errors import TvmpipeError, reason_of
from tvmpipe.passes import driver
from tvmpipe.passes.backend.codegen.llvm import build_stage
from tvmpipe.passes.backend.onnx_stage import OnnxStage
from tvmpipe.passes.backend.partition import emit
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.graph.stages import derive_stages
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.device.runners.onnxruntime import input_name, weight_name
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.boards import find_target
from tvmpipe.tensors import element_dtype

Verdict = Literal["equal", "different", "refused"]


@dataclass(frozen=True)
class Checked:
    """What came of a model: a sentence where it is not equal, operators that ONNX Runtime's stages ran, and disputed
    results: operator -> whose answer ours is."""

    verdict: Verdict
    sentence: str
    left: tuple[str, ...] = ()
    disputes: tuple[tuple[str, str], ...] = ()


def check(made: RandomModel, seed: int, *, staged: bool = False) -> Checked:
    """Compile and run a model. With `staged` as users do it: planned, cut between two devices, written as a bundle;
    otherwise one stage for each code generator, which is not linked."""
    try:
        front = driver.front(made.model)
        results = _in_stages(front, made, seed) if staged else run_fused(front, made.sample)
    except TvmpipeError as error:
        return Checked("refused", str(error))
    left = tuple(
        operator for primitive in front.graph.primitives if primitive.fallback for operator in primitive.operators
    )
    half = _in_half(made)
    wrong = {
        name: found.sentence
        for name, answer in _outputs(made).items()
        if (found := answer.compare(results.get(name), half=half)).verdict == "different"
    }
    disputes = tuple(_disputes(made, results, half))
    if wrong and _noise(made, results):
        wrong = {}
    if not wrong:
        return Checked("equal", "", left, disputes)
    return Checked("different", "; ".join(f"{name}: {why}" for name, why in wrong.items()), left, disputes)


def blame(made: RandomModel) -> str:
    """The first step whose result is wrong for what it is given, where every value is a result."""
    every = assembled(made.steps, made.sample, made.answers, made.opset, every=True)
    try:
        values = {**made.sample, **run_fused(driver.front(every.model), made.sample)}
    except TvmpipeError as error:
        return f"refused where every value is a result: {error}"
    half = _in_half(made)
    for step in made.steps:
        given = {name: values[name] for node in step.nodes for name in _reads(node) if name in values}
        first, second = answers(step.nodes, given, step.weights, step.results, made.opset)
        for place, name in enumerate(step.results):
            known = made.answers[name]
            wanted = [one[place] for one in (first, second) if one is not None]
            tries = [Answer(want, None, known.half, known.apart).compare(values[name], half=half) for want in wanted]
            if tries and all(found.verdict == "different" for found in tries):
                return f"{tries[0].sentence}\n{_described(step, given)}\nmakes {_short(values[name])}\nand not " + (
                    " or ".join(map(_short, wanted))
                )
    return "no node alone is wrong: fusion, or noise"


def _reads(node: Any) -> list[str]:
    from tvmpipe.passes.frontend.onnx_values import reads

    return list(reads(node))


def _described(step: Any, given: Mapping[str, Array]) -> str:
    import onnx

    nodes = "\n".join(onnx.printer.to_text(node) for node in step.nodes)
    weights = [f"{name} = {_short(array)} constant" for name, array in step.weights.items()]
    return "\n".join([nodes, *(f"{name} = {_short(array)}" for name, array in given.items()), *weights])


def _short(array: Array) -> str:
    text = np.array2string(array, threshold=32, edgeitems=3, precision=7, max_line_width=150)
    return f"{array.dtype.name}{list(array.shape)} {text}"


def _in_half(made: RandomModel) -> bool:
    return any(answer.half for answer in made.answers.values())


def _outputs(made: RandomModel) -> dict[str, Answer]:
    return {value.name: made.answers[value.name] for value in made.model.graph.output}


def _disputes(made: RandomModel, results: Mapping[str, Array], half: bool) -> Any:
    by_result = {name: step.operators[0] for step in made.steps for name in step.results}
    for name, answer in _outputs(made).items():
        if answer.other is None or name not in results:
            continue
        alone = Answer(answer.array, None, answer.half, answer.apart)
        runtime = alone.compare(results[name], half=half).verdict != "different"
        whose = "ONNX Runtime's" if runtime else "the reference's"
        yield by_result[name], whose if answer.compare(results[name], half=half).verdict != "different" else "neither's"


def _noise(made: RandomModel, results: Mapping[str, Array]) -> bool:
    """Whether results differ by no more than the model amplifies noise, or are nearer to float64."""
    try:
        reference = Reference(made.model.SerializeToString(), threads=1)
        return reference.compare(results, made.sample).verdict != "different"
    except Exception:  # noqa: BLE001  # ONNX Runtime lacks an operator; nothing is known of the noise
        return False


@functools.cache
def _target() -> Any:
    return find_target("native")


def run_fused(front: driver.Fused, sample: Mapping[str, Array]) -> dict[str, Array]:
    """Results of a fused model: the stages of one device, built and not linked, one after the other."""
    graph = front.graph
    shapes = derive_stages(graph, {name: ("a",) for name in graph.by_name()})
    specs = {spec.name: spec for spec in front.signature.inputs}
    values = {
        value: np.ascontiguousarray(sample[name], specs[name].dtype).reshape(sample[name].shape)
        for name, value in graph.model_inputs.items()
    }
    for place, shape in enumerate(shapes):
        stage = emit(graph, front.module, f"s{place}", shape)
        given = [values[value] for value in shape.inputs]
        weights = [weight.array for weight in stage.weights]
        if isinstance(stage.module, OnnxStage):
            made = _onnx_stage(stage.module, given, {weight.name: weight.array for weight in stage.weights})
        else:
            made = _compiled(stage.module, given, weights)
        values.update(zip(shape.outputs, made, strict=True))
    elements = {spec.name: spec.element for spec in front.signature.outputs}
    return {
        name: values[value].astype(element_dtype(element)) if (element := elements[name]) else values[value]
        for name, value in graph.model_outputs.items()
    }


def _compiled(module: Any, inputs: list[Array], weights: list[Array]) -> list[Array]:
    import tvm
    from tvm import relax

    try:
        executable, _ = build_stage(module, _target(), 1)
    except Exception as error:
        raise TvmpipeError(f"TVM cannot compile: {reason_of(error)}") from error
    machine = relax.VirtualMachine(executable, tvm.cpu())
    tensors = [tvm.runtime.tensor(array) for array in inputs]
    held = [tuple(tvm.runtime.tensor(array) for array in weights)] if weights else []
    return [made.numpy() for made in machine["main"](*tensors, *held)]


def _onnx_stage(stage: OnnxStage, inputs: list[Array], weights: Mapping[str, Array]) -> list[Array]:
    import onnx

    model = onnx.load_from_string(stage.model)
    for tensor in model.graph.initializer:
        for name, array in weights.items():
            if tensor.name == weight_name(name):
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    feed = {input_name(place): array for place, array in enumerate(inputs)}
    return [
        np.asarray(made) for made in session_of(model.SerializeToString(), optimised=True, threads=1).run(None, feed)
    ]


def _in_stages(front: driver.Fused, made: RandomModel, seed: int) -> dict[str, Array]:
    """As users have it: primitives before a random one on one device, the others on another."""
    cut = int(np.random.default_rng(seed).integers(len(front.graph.by_name()) + 1))
    with run_in_process(cut_in_two(front, cut)) as pipe:
        return pipe.run(made.sample)
