"""Placement problems from models through our own front end: imported, fused, priced on described devices.

Weights are seeded, so that only structure, shapes and sizes matter. What fusion leaves of a model is kept in the
user's cache, under a hash of the sources that made it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx

import tvmpipe
from benchmarks.models import MODELS
from benchmarks.structures import STRUCTURES
from tvmpipe.passes.graph.primitive_features import works_of
from tvmpipe.passes.graph.primitives import Primitive, PrimitiveGraph, extract_graph
from tvmpipe.passes.objectives.base import Objective
from tvmpipe.passes.placement.problem import Problem
from tvmpipe.passes.planning.cost_table import CostTable, price_table
from tvmpipe.passes.planning.default_cost import default_cost
from tvmpipe.passes.planning.problem_from_graph import problem_from_graph
from tvmpipe.reference.seeded_models import LIGHT_MODELS, light_model
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.roofline import Roofline
from tvmpipe.targets.description.cluster import Cluster
from tvmpipe.targets.store.profile_store import default_store

NAMES = (*MODELS, *STRUCTURES, *LIGHT_MODELS)


@dataclass(frozen=True)
class Fused:
    """A model as primitives, and as the operators that were fused into them: `owner[i]` is operator i's primitive.

    Operators are those that fusion sees: after import, folding and lowering, before `FuseOps`.
    """

    graph: PrimitiveGraph
    operators: PrimitiveGraph
    owner: tuple[int, ...]


def fused_problem(model: Fused, cluster: Cluster, objective: Objective) -> Problem:
    """The problem of a model whose nodes are fused primitives."""
    return problem_from_graph(model.graph, _costs(model.graph, cluster), cluster, objective, {})


def operator_problem(model: Fused, cluster: Cluster, objective: Objective) -> Problem:
    """The same with operators for nodes. Those of a primitive share its time by what each would take alone, so that
    every placement of primitives is one of operators that computes as long."""
    whole = _costs(model.graph, cluster)
    roofline = Roofline(call_s=0.0)
    shares = {}
    for device in cluster.devices:
        alone = [roofline.estimate(_work(operator), device).latency_s for operator in model.operators.primitives]
        total = [0.0] * len(model.graph.primitives)
        for owner, seconds in zip(model.owner, alone, strict=True):
            total[owner] += seconds
        latency = whole.latency_s[device.name]
        count = [model.owner.count(owner) for owner in range(len(total))]
        shares[device.name] = tuple(
            latency[owner] * (seconds / total[owner] if total[owner] else 1 / count[owner])
            for owner, seconds in zip(model.owner, alone, strict=True)
        )
    return problem_from_graph(model.operators, CostTable(shares, whole.sources), cluster, objective, {})


def _work(primitive: Primitive) -> Work:
    return Work(
        primitive.flops, primitive.input_bytes, primitive.weight_bytes, primitive.output_bytes, primitive.operators
    )


def _costs(graph: PrimitiveGraph, cluster: Cluster) -> CostTable:

    return price_table(works_of(graph, None), cluster, default_cost(default_store()))[0]


@cache
def fused(name: str) -> Fused:
    """What the front end makes of a model of `NAMES`, without code and weights. Takes seconds the first time."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvmpipe" / "problems"
    path = folder / f"{name}-{_sources()}.pickle"
    if path.is_file():
        found: Fused = pickle.loads(path.read_bytes())
        return found
    made = fuse(_model(name))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(made))
    return made


def _model(name: str) -> onnx.ModelProto:
    if name in MODELS:
        return MODELS[name]()
    return STRUCTURES[name]() if name in STRUCTURES else light_model(name)


@cache
def _sources() -> str:
    """A hash of everything that decides what a model becomes."""
    package, here = Path(tvmpipe.__file__).parent, Path(__file__).parent
    files = [
        here / "problems.py",
        here / "models.py",
        here / "structures.py",
        package / "reference" / "seeded_models.py",
    ]
    files += [path for path in sorted((package / "passes").rglob("*.py")) if "placement" not in path.parts]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def fuse(model: onnx.ModelProto) -> Fused:
    """Run the front end on a model, and note what `FuseOps` made of which operators."""
    import tvm

    from tvmpipe.passes import driver

    after: list[Any] = []

    @tvm.instrument.pass_instrument
    class Watch:
        def run_after_pass(self, module: Any, info: Any) -> None:
            if info.name == "FuseOps":
                after.append(module)

    with tvm.transform.PassContext(instruments=[Watch()]):
        state = driver.front(model)
    operators, owner = _unfused(after[-1], state.signature, state.graph)
    return Fused(_plain(state.graph), _plain(operators), owner)


def _unfused(module: Any, signature: Any, fused: PrimitiveGraph) -> tuple[PrimitiveGraph, tuple[int, ...]]:
    """The operators of a module that `FuseOps` left, in order, and the primitive that each is part of."""
    from tvm import relax

    inside = {
        variable: function
        for variable, function in module.functions.items()
        if isinstance(function, relax.Function) and function.attrs and "Primitive" in function.attrs
    }
    counts = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if getattr(getattr(binding.value, "op", None), "name", "") == "relax.call_tir":
                counts.append(1)
            elif getattr(binding.value, "op", None) in inside:
                body = inside[binding.value.op].body
                calls = [one.value for part in body.blocks for one in part.bindings]
                counts.append(sum(getattr(getattr(c, "op", None), "name", "") == "relax.call_tir" for c in calls))
    module["main"] = module["main"].inline_functions(inside)
    module = relax.transform.DeadCodeElimination()(relax.transform.CanonicalizeBindings()(module))
    graph = extract_graph(module, signature)
    owner = tuple(index for index, count in enumerate(counts) for _ in range(count))
    if len(owner) != len(graph.primitives) or len(counts) != len(fused.primitives):
        raise AssertionError("operators and primitives of this module cannot be matched one by one")
    return graph, owner


def _plain(graph: PrimitiveGraph) -> PrimitiveGraph:
    """The graph without anything of TVM in it."""
    primitives = tuple(replace(primitive, call=None) for primitive in graph.primitives)
    return PrimitiveGraph(
        primitives, graph.values, dict(graph.model_inputs), dict(graph.model_outputs), {}, dict(graph.weight_sizes)
    )
