"""What ONNX Runtime takes for its primitives: measured here, once, and kept beside the user's other measurements."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.targets.cost.model import OnnxRuntimeWork, Work
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.host import NATIVE
from tvmpipe.targets.store import jsonl

logger = logging.getLogger(__name__)

_FILE = "onnxruntime.jsonl"
_RUNS = 15
_BUDGET_S = 0.5
_UNKNOWN_S = 1e-3  # of what does not run on the sample that it is timed on


def with_fallback_times(works: Sequence[Work], graph: PrimitiveGraph, folder: Path) -> list[Work]:
    """`works` of the primitives of a graph, where those that ONNX Runtime runs know how long that takes here.

    A time is the least of some runs on one thread, for the seeded sample that the group has. It is measured for half a
    second at most and kept in `folder`: plans of a model are the same from then on.
    """
    if all(primitive.fallback is None for primitive in graph.primitives):
        return list(works)
    host = find_target(NATIVE)
    known = {row["key"]: float(row["seconds"]) for row in jsonl.read(folder / _FILE, _checked)}
    found: list[Work] = []
    for primitive, work in zip(graph.primitives, works, strict=True):
        group = primitive.fallback
        if group is None:
            found.append(work)
            continue
        key = f"{group.digest()}.{version('onnxruntime')}.{host.identity}.{platform.node()}"
        if key not in known:
            known[key] = float(f"{_measured_s(graph, primitive.call, group):.3g}")
            try:
                jsonl.append(folder / _FILE, [{"key": key, "seconds": known[key]}])
            except InputError as error:
                logger.warning("%s: it is measured again each time", error)
        what = {**vars(work), "key": group.digest()[:32]}  # by which runs of its stage are learned from
        found.append(OnnxRuntimeWork(**what, host_s=known[key], host=host))
    return found


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    if not (isinstance(row["key"], str) and 0 < float(row["seconds"]) < 1e6):
        raise ValueError("no measurement")
    return row


def _measured_s(graph: PrimitiveGraph, call: Any, group: FallbackGroup) -> float:
    weights = call.args[1 + len(group.inputs) :]
    feed = {
        **group.sample,
        **{name: graph.pool.find(one).array for name, one in zip(group.weights, weights, strict=True)},
    }
    try:
        session = session_of(group.model.SerializeToString(), optimised=True, threads=1)
        asked = {value.name for value in session.get_inputs()}
        feed = {name: np.ascontiguousarray(array) for name, array in feed.items() if name in asked}
        session.run(None, feed)
        least, until = float("inf"), time.perf_counter() + _BUDGET_S
        for _ in range(_RUNS):
            began = time.perf_counter()
            session.run(None, feed)
            ended = time.perf_counter()
            least = min(least, ended - began)
            if ended > until:
                break
    except Exception as error:  # noqa: BLE001  # its exceptions have no common base
        logger.warning("%s is not measured, as it does not run on a random sample: %s", group.name, error)
        return _UNKNOWN_S
    return least
