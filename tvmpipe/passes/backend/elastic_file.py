"""What an elastic bundle keeps of its compilation, so that other plans can be made of it where it runs.

That is the fused model of each bucket without its weights, which lie in the bundle's weight files; the cluster and the
options it was planned with; and of each library what it was compiled from, so that nothing is compiled twice. It is
plain JSON: reading it runs nothing.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from tvm_ffi import structural_hash

from tvmpipe.errors import BundleError, InputError
from tvmpipe.passes.backend.codegen import StageCode
from tvmpipe.passes.backend.detached import attached, detached
from tvmpipe.passes.backend.onnx_stage import OnnxStage
from tvmpipe.passes.backend.partition import Stage
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.bucket import Bucket, Buckets
from tvmpipe.passes.graph.primitives import PrimitiveGraph, extract_graph
from tvmpipe.passes.graph.weights import WeightPool
from tvmpipe.passes.objectives import NAMES, find_objective
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.description.cluster import Cluster, Device, Link
from tvmpipe.targets.description.target import TargetDescription

FILE = "elastic.json"

_FORMAT = 1
_OPTIONS = ("pins", "replicate", "compress", "robust", "prompt", "generate")

Libraries = Mapping[str, StageCode]
"""What has been compiled, by `library_key`."""


@dataclass(frozen=True)
class Kept:
    """What was read: `module` and `graph` are of the largest bucket, `left` as `front` takes it."""

    signature: Signature
    module: Any
    graph: PrimitiveGraph
    buckets: Buckets
    left: Mapping[str, str]
    cluster: Cluster
    options: BuildOptions
    libraries: Libraries


def library_key(stage: Stage, device: Device) -> str:
    """Says what a stage's library on a device is compiled from: equal keys, equal libraries."""
    if isinstance(stage.module, OnnxStage):
        return f"{hash_text(stage.module.model)}.onnxruntime"
    target = device.target
    code = stage.shape.codegen or target.codegen
    return f"{structural_hash(stage.module) & (1 << 64) - 1:016x}.{code}.{target.identity}.{device.threads}"


def hash_text(content: bytes) -> str:
    """The first 16 hex digits of a sha256."""
    import hashlib

    return hashlib.sha256(content).hexdigest()[:16]


def check_keepable(options: BuildOptions) -> None:
    """Raises InputError for options that a bundle cannot keep."""
    if options.objective.name not in NAMES:
        raise InputError(f"an elastic bundle keeps the objectives {', '.join(NAMES)}, not {options.objective.name!r}")


def to_json(
    signature: Signature,
    module: Any,
    graph: PrimitiveGraph,
    buckets: Buckets,
    left: Mapping[str, str],
    cluster: Cluster,
    options: BuildOptions,
    libraries: Mapping[str, tuple[str, int]],
) -> str:
    """All of it as text. `libraries` say for each key the path of the file in the bundle and what running it allocates.

    Raises InputError where the objective is none that has a name.
    """
    check_keepable(options)
    first = Bucket(buckets.extents, buckets.exact, signature, module, graph)
    told = {
        "format": _FORMAT,
        "buckets": [_bucket(one) for one in (first, *buckets.others)],
        "axes": dict(buckets.axes),
        "pads": dict(buckets.pads),
        "left": dict(left),
        "devices": [_plain(Device, device) for device in cluster.devices],
        "links": [[*sorted(ends), link.bandwidth_bps, link.latency_s] for ends, link in sorted_links(cluster)],
        "network": [cluster.network.bandwidth_bps, cluster.network.latency_s, cluster.default_network],
        "targets": [_plain(TargetDescription, target) for target in cluster.targets],
        "objective": options.objective.name,
        "options": {name: _jsonable(getattr(options, name)) for name in _OPTIONS},
        "libraries": {key: list(where) for key, where in sorted(libraries.items())},
    }
    return json.dumps(told, indent=1) + "\n"


def sorted_links(cluster: Cluster) -> list[tuple[frozenset[str], Link]]:
    """The links that a cluster file names, in an order of their own."""
    return sorted(cluster.links.items(), key=lambda one: sorted(one[0]))


def from_json(text: str, root: Path, weights: Mapping[str, NDArray[Any]]) -> Kept:
    """What `to_json` wrote; `root` is that of the bundle, `weights` are all of its weights by name.

    Raises BundleError.
    """
    try:
        told = json.loads(text)
        if told["format"] != _FORMAT:
            raise BundleError(f"what the bundle keeps has format {told['format']}; this version reads {_FORMAT}")
        pool = WeightPool()
        first, *others = (_read_bucket(one, weights, pool) for one in told["buckets"])
        axes = {name: tuple(names) for name, names in told["axes"].items()}
        buckets = Buckets(axes, told["pads"], first.extents, first.exact, tuple(others))
        bandwidth_bps, latency_s, default = told["network"]
        cluster = Cluster(
            tuple(TypeAdapter(Device).validate_python(one) for one in told["devices"]),
            {frozenset((a, b)): Link(bps, seconds) for a, b, bps, seconds in told["links"]},
            Link(bandwidth_bps, latency_s),
            default,
            tuple(TypeAdapter(TargetDescription).validate_python(one) for one in told["targets"]),
        )
        options = BuildOptions(objective=find_objective(told["objective"]), **told["options"])
        libraries = {
            key: StageCode((root / path).read_bytes(), allocated)
            for key, (path, allocated) in told["libraries"].items()
        }
        return Kept(first.signature, first.module, first.graph, buckets, told["left"], cluster, options, libraries)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, InputError, OSError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{FILE} of the bundle is damaged: {type(error).__name__} {error}") from None


def _bucket(bucket: Bucket) -> dict[str, Any]:
    return {
        "extents": dict(bucket.extents),
        "exact": dict(bucket.exact),
        "signature": _plain(Signature, bucket.signature),
        "module": detached(bucket.module, bucket.graph.pool),
        "groups": [_group(one) for one in _groups(bucket.graph)],
    }


def _read_bucket(told: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], pool: WeightPool) -> Bucket:
    signature = TypeAdapter(Signature).validate_python(told["signature"])
    module = attached(told["module"], weights, pool)
    graph = extract_graph(module, signature, [_read_group(one) for one in told["groups"]], pool)
    return Bucket(told["extents"], told["exact"], signature, module, graph)


def _groups(graph: PrimitiveGraph) -> Iterable[FallbackGroup]:
    found = {one.fallback.number: one.fallback for one in graph.primitives if one.fallback is not None}
    return (found[number] for number in sorted(found))


def _group(group: FallbackGroup) -> dict[str, Any]:
    return {
        "number": group.number,
        "reasons": dict(group.reasons),
        "operators": list(group.operators),
        "model": _encoded(group.model.SerializeToString(deterministic=True)),
        "inputs": list(group.inputs),
        "weights": list(group.weights),
        "outputs": [spec.model_dump(mode="json") for spec in group.outputs],
        "working_bytes": group.working_bytes,
        "flops": group.flops,
        "sample": {name: _encoded(_npy(array)) for name, array in sorted(group.sample.items())},
    }


def _read_group(told: Mapping[str, Any]) -> FallbackGroup:
    from tvmpipe.tensors import TensorSpec

    return FallbackGroup(
        number=told["number"],
        reasons=told["reasons"],
        operators=tuple(told["operators"]),
        model=onnx.load_from_string(base64.b64decode(told["model"])),
        inputs=tuple(told["inputs"]),
        weights=tuple(told["weights"]),
        outputs=tuple(TensorSpec.model_validate(spec) for spec in told["outputs"]),
        working_bytes=told["working_bytes"],
        flops=told["flops"],
        sample={
            name: np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
            for name, text in told["sample"].items()
        },
    )


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _plain(kind: Any, value: Any) -> Any:
    """A dataclass as JSON's types."""
    return TypeAdapter(kind).dump_python(value, mode="json")


def _jsonable(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def weight_readers(graphs: Sequence[PrimitiveGraph]) -> dict[str, list[str]]:
    """Who reads which weights, whatever the plan: primitives of all buckets, by the number of the bucket and name."""
    return {
        f"{number}.{primitive.name}": list(primitive.weights)
        for number, graph in enumerate(graphs)
        for primitive in graph.primitives
    }
