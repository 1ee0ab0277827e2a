"""Loop and Scan: the nodes of the body, once for each trip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from tvmpipe.passes.frontend.folding.expansion import (
    choose,
    element,
    fixed_type,
    inline,
    known_scalar,
    stack,
    truth,
)
from tvmpipe.passes.frontend.folding.folder import CannotExpandError, Folder
from tvmpipe.passes.frontend.onnx_values import attribute_of

_MOST_TRIPS = 4000


def expand_loop(folder: Folder, node: onnx.NodeProto) -> None:
    """Take the body of a Loop as often as it runs.

    Where its condition depends on data and a number of trips bounds it, all these are computed, and each keeps what was
    carried into it when the loop had ended before. That cannot be done for results that have an element for each trip.
    """
    with folder.whole(loop=True):
        results = _unrolled(folder, node)
    for name, result in zip(node.output, results, strict=False):
        folder.bind(name, result)


def _unrolled(folder: Folder, node: onnx.NodeProto) -> list[str]:
    body: onnx.GraphProto = attribute_of(node, "body")
    if len(body.input) != len(node.input) or len(body.output) != 1 + len(node.output):
        raise CannotExpandError("its body takes or gives something else than it does")
    trips = known_scalar(folder, node.input[0]) if node.input[0] else None
    if node.input[0] and trips is None:
        raise CannotExpandError("the number of its trips depends on the data")
    carried = list(node.input[2:])
    goes_on: str | None = node.input[1] if len(node.input) > 1 and node.input[1] else None
    inputs = [value.name for value in body.input]
    scanned: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    running: str | None = None  # a boolean scalar that says whether the loop still runs, None for surely
    # The condition holds whenever the body runs. Some exporters declare both to be of one axis.
    single = [[1] * len(value.type.tensor_type.shape.dim[:1]) for value in body.input[:2]]
    true = folder.constant(np.array(True).reshape(single[1]))
    for trip in itertools.count():
        if trips is not None and trip >= trips:
            break
        if trip >= _MOST_TRIPS:
            raise CannotExpandError(f"it makes more than {_MOST_TRIPS} trips")
        known = 1 if goes_on is None else known_scalar(folder, goes_on)
        if known == 0:
            break
        if known is None:
            if trips is None or scanned:
                raise CannotExpandError("how often it runs depends on the data")
            now = truth(folder, str(goes_on))
            running = now if running is None else folder.emit("And", [running, now])
        number = folder.constant(np.array(trip).reshape(single[0]))
        given = dict(zip(inputs, (number, true, *carried), strict=True))
        if running is None:
            goes_on, *made = inline(folder, body, given, f"trip{trip}")
        else:
            with folder.speculation():
                goes_on, *made = inline(folder, body, given, f"trip{trip}")
            after = zip(made, carried, strict=True)
            made = [choose(folder, running, new, old) for new, old in after]
        carried = made[: len(carried)]
        for values, value in zip(scanned, made[len(carried) :], strict=True):
            values.append(value)
    if scanned and not scanned[0]:
        first = folder.constant(np.array(0).reshape(single[0]))
        given = dict(zip(inputs, (first, true, *carried), strict=True))
        return [*carried, *_empty(folder, inline(folder, body, given, "never")[len(carried) + 1 :])]
    return [*carried, *(stack(folder, values, 0) for values in scanned)]


def expand_scan(folder: Folder, node: onnx.NodeProto) -> None:
    """Take the body of a Scan once for each element of the axis that it goes along."""
    with folder.whole(loop=True):
        results = _scanned(folder, node) if folder.opset > 8 else _scanned_in_batches(folder, node)
    for name, result in zip(node.output, results, strict=False):
        folder.bind(name, result)


def _scanned(folder: Folder, node: onnx.NodeProto) -> list[str]:
    body: onnx.GraphProto = attribute_of(node, "body")
    count = attribute_of(node, "num_scan_inputs")
    states, scans = list(node.input)[:-count], list(node.input)[-count:]
    made = len(body.output) - len(states)
    return _scan(
        folder,
        body,
        states,
        scans,
        (
            list(attribute_of(node, "scan_input_axes", [0] * count)),
            list(attribute_of(node, "scan_input_directions", [0] * count)),
            list(attribute_of(node, "scan_output_axes", [0] * made)),
            list(attribute_of(node, "scan_output_directions", [0] * made)),
        ),
    )


def _scanned_in_batches(folder: Folder, node: onnx.NodeProto) -> list[str]:
    """Scan of opset 8: every tensor has a batch axis first, and what is scanned the axis of the sequence behind it."""
    body: onnx.GraphProto = attribute_of(node, "body")
    if node.input[0]:
        raise CannotExpandError("it has a length for each sample")
    count = attribute_of(node, "num_scan_inputs")
    states, scans = list(node.input)[1:-count], list(node.input)[-count:]
    made = len(body.output) - len(states)
    directions = list(attribute_of(node, "directions", [0] * count))
    _, shape = fixed_type(folder, scans[0])
    samples = []
    for sample in range(shape[0]):
        own_states, own_scans = ([element(folder, name, sample, 0) for name in names] for names in (states, scans))
        along = [0] * count, directions, [0] * made, [0] * made
        samples.append(_scan(folder, body, own_states, own_scans, along))
    if not samples:
        raise CannotExpandError("its batch is empty")
    return [stack(folder, parts, 0) for parts in zip(*samples, strict=True)]


def _scan(
    folder: Folder,
    body: onnx.GraphProto,
    states: list[str],
    scans: list[str],
    along: tuple[list[int], list[int], list[int], list[int]],
) -> list[str]:
    """Final states and stacked results; `along` are axes and directions (1 for backwards) of inputs and of results."""
    axes, directions, result_axes, result_directions = along
    lengths = {fixed_type(folder, name)[1][axis] for name, axis in zip(scans, axes, strict=True)}
    if len(lengths) != 1:
        raise CannotExpandError(f"what it goes along has different lengths {sorted(lengths)}")
    (length,) = lengths
    inputs = [value.name for value in body.input]
    if len(inputs) != len(states) + len(scans) or len(body.output) != len(states) + len(result_axes):
        raise CannotExpandError("its body takes or gives something else than it does")
    stacked: list[list[str]] = [[] for _ in result_axes]
    for trip in range(length):
        parts = [
            element(folder, name, length - 1 - trip if backwards else trip, axis)
            for name, axis, backwards in zip(scans, axes, directions, strict=True)
        ]
        made = inline(folder, body, dict(zip(inputs, (*states, *parts), strict=True)), f"trip{trip}")
        states = made[: len(states)]
        for values, value in zip(stacked, made[len(states) :], strict=True):
            values.append(value)
    if not length:
        raise CannotExpandError("it goes along an axis of no elements")
    ordered = [v[::-1] if backwards else v for v, backwards in zip(stacked, result_directions, strict=True)]
    return [*states, *(stack(folder, values, axis) for values, axis in zip(ordered, result_axes, strict=True))]


def _empty(folder: Folder, results: Sequence[str]) -> list[str]:
    """What a loop that never runs gives where each trip would add one of `results`."""
    types = [fixed_type(folder, name) for name in results]
    arrays = (np.zeros((0, *shape), helper.tensor_dtype_to_np_dtype(kind)) for kind, shape in types)
    return [folder.constant(array) for array in arrays]
