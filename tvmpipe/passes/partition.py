"""Cut the primitive graph into stages: one Relax function each, with only the weights it reads."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
from numpy.typing import NDArray

from tvmpipe.passes.base import CompileState, required
from tvmpipe.passes.contract import contract
from tvmpipe.passes.plan import Plan
from tvmpipe.passes.primitives import PrimitiveGraph, map_tensors

ENTRY = "main"


@dataclass(frozen=True)
class Stage:
    """A convex part of the graph on one device.

    Attributes: `name` "s0", "s1", ... in an order they can run in; `primitives` indices in running order;
    `inputs`, `outputs` value ids; `module` an IRModule whose `main` takes the inputs and then, if there are any,
    one tuple of all weights, and returns a tuple of the outputs; `weights` in the order of that tuple.
    """

    name: str
    device: str
    primitives: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: Any
    weights: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Partition:
    """Derive the stages of the plan and emit a module for each; fill in `stages`."""

    name: str = "partition"

    def apply(self, state: CompileState) -> CompileState:
        graph: PrimitiveGraph = required(state.graph, "graph")
        plan: Plan = required(state.plan, "plan")
        groups = derive_stages(graph, plan.placement)
        stages = tuple(
            _emit(graph, state.module, f"s{position}", device, group)
            for position, (device, group) in enumerate(groups)
        )
        return replace(state, stages=stages)


def derive_stages(graph: PrimitiveGraph, placement: Mapping[str, str]) -> list[tuple[str, tuple[int, ...]]]:
    """(device, primitive indices) per stage, in an order in which stages can run.

    A primitive's depth counts how often a path to it changes device. Primitives of one depth and device form a
    stage: every edge between two stages leads to a larger depth, so that the graph of stages has no cycle.
    Stages of one device are then joined where that keeps it so.
    """
    dag = graph.digraph()
    device_of = {index: placement[graph.primitives[index].name] for index in dag}
    depth: dict[int, int] = {}
    for index in sorted(dag):
        depth[index] = max(
            (depth[before] + (device_of[before] != device_of[index]) for before in dag.predecessors(index)),
            default=0,
        )
    members: dict[tuple[int, str], list[int]] = {}
    for index in sorted(dag):
        members.setdefault((depth[index], device_of[index]), []).append(index)
    stages = nx.DiGraph()
    stages.add_nodes_from(members)
    for before, after in dag.edges:
        a, b = (depth[before], device_of[before]), (depth[after], device_of[after])
        if a != b:
            stages.add_edge(a, b)
    _join(stages, members)
    order = nx.lexicographical_topological_sort(stages, key=lambda stage: members[stage][0])
    return [(stage[1], tuple(sorted(members[stage]))) for stage in order]


def _join(stages: nx.DiGraph, members: dict[tuple[int, str], list[int]]) -> None:
    """Join stages of one device wherever no path leads from one to the other through a third."""
    pairs = [(a, b) for a, b in itertools.combinations(sorted(members), 2) if a[1] == b[1]]
    while any(_joined(stages, members, a, b) for a, b in pairs):
        pairs = [(a, b) for a, b in pairs if a in members and b in members]


def _joined(
    stages: nx.DiGraph, members: dict[tuple[int, str], list[int]], a: tuple[int, str], b: tuple[int, str]
) -> bool:
    if not contract(stages, a, b):
        return False
    members[a] += members.pop(b)
    return True


def _emit(graph: PrimitiveGraph, module: Any, name: str, device: str, primitives: tuple[int, ...]) -> Stage:
    """The module of one stage. Primitives that depend on no input are repeated in each stage that reads them."""
    inside = _with_constants(graph, primitives)
    made = {value for index in inside for value in graph.primitives[index].outputs}
    inputs = tuple(
        dict.fromkeys(v for index in inside for v in graph.primitives[index].inputs if v not in made)
    )
    members = set(primitives)
    wanted = set(graph.model_outputs.values()) | {
        value for p in graph.primitives if p.index not in members and not p.constant for value in p.inputs
    }
    outputs = tuple(v for index in primitives for v in graph.primitives[index].outputs if v in wanted)
    emitter = _Emitter(graph, module)
    stage_module = emitter.run(inside, inputs, outputs)
    return Stage(name, device, primitives, inputs, outputs, stage_module, tuple(emitter.weights))


def _with_constants(graph: PrimitiveGraph, primitives: tuple[int, ...]) -> list[int]:
    inside: set[int] = set()
    pending = list(primitives)
    while pending:
        index = pending.pop()
        inside.add(index)
        for value in graph.primitives[index].inputs:
            producer = graph.values[value].producer
            if producer is not None and graph.primitives[producer].constant and producer not in inside:
                pending.append(producer)
    return sorted(inside)


class _Emitter:
    """Writes calls of primitives into a new module, turning tensor constants into parameters."""

    def __init__(self, graph: PrimitiveGraph, module: Any) -> None:
        self.graph = graph
        self.module = module
        self.weights: list[NDArray[Any]] = []
        self.weight_types: list[Any] = []
        self.position_of: dict[bytes, int] = {}  # hash of a constant -> its place among the weights
        self.weight_variables: list[Any] = []
        self.variable_of: dict[int, Any] = {}  # value id -> variable in the new function

    def run(self, inside: list[int], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Any:
        import tvm
        from tvm import relax

        functions = {
            gvar: self.module[gvar]
            for index in inside
            for gvar in self.graph.primitives[index].call.args
            if isinstance(gvar, tvm.ir.GlobalVar)
        }
        # The weights' tuple must be known before the body.
        for index in inside:
            for argument in self.graph.primitives[index].call.args:
                map_tensors(argument, lambda variable: variable, self._collect)
        arguments = []
        for position, value in enumerate(inputs):
            spec = self.graph.values[value].spec
            self.variable_of[value] = relax.Var(f"input{position}", relax.TensorType(list(spec.shape), spec.dtype))
            arguments.append(self.variable_of[value])
        builder = relax.BlockBuilder(tvm.IRModule(functions))
        # One tuple: over RPC, TVM's virtual machine copies each tensor argument but passes a tuple as it is.
        if self.weights:
            arguments.append(relax.Var("weights", relax.TupleType(self.weight_types)))
        with builder.function(ENTRY, arguments):
            with builder.dataflow():
                for position in range(len(self.weights)):
                    self.weight_variables.append(builder.emit(relax.TupleGetItem(arguments[-1], position)))
                for index in inside:
                    self._call(builder, index)
                result = builder.emit_output(relax.Tuple([self.variable_of[value] for value in outputs]))
            builder.emit_func_output(result)
        module = builder.get()
        module[ENTRY] = module[ENTRY].with_attr("num_input", len(inputs))
        return module

    def _call(self, builder: Any, index: int) -> None:
        import tvm
        from tvm import relax

        primitive = self.graph.primitives[index]
        arguments = [map_tensors(argument, self._variable, self._weight) for argument in primitive.call.args]
        call = tvm.ir.Call(primitive.call.op, arguments, primitive.call.attrs, primitive.call.ty_args)
        result = builder.emit(call)
        if isinstance(result.ty, relax.TupleType):
            for position, value in enumerate(primitive.outputs):
                self.variable_of[value] = builder.emit(relax.TupleGetItem(result, position))
        else:
            self.variable_of[primitive.outputs[0]] = result

    def _variable(self, variable: Any) -> Any:
        from tvm import relax

        values = [self.variable_of[value] for value in self.graph.value_of[variable]]
        return relax.Tuple(values) if isinstance(variable.ty, relax.TupleType) else values[0]

    def _collect(self, constant: Any) -> Any:
        """Remember a constant as a weight; equal constants are one."""
        array = constant.value.numpy()
        key = _content_key(array)
        if key not in self.position_of:
            self.position_of[key] = len(self.weights)
            self.weights.append(array)
            self.weight_types.append(constant.ty)
        return constant

    def _weight(self, constant: Any) -> Any:
        return self.weight_variables[self.position_of[_content_key(constant.value.numpy())]]


def _content_key(array: NDArray[Any]) -> bytes:
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).digest()
