"""Cut the primitive graph into stages: one Relax function each, with only the weights it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.backend.onnx_stage import onnx_stage
from tvmpipe.passes.graph.bucket import Bucket
from tvmpipe.passes.graph.node_names import nodes_of_primitives
from tvmpipe.passes.graph.primitives import ONNXRUNTIME, PrimitiveGraph, map_tensors
from tvmpipe.passes.graph.stages import StageShape
from tvmpipe.passes.graph.weights import Weight
from tvmpipe.passes.planning.evaluate import Price
from tvmpipe.passes.planning.plan import Plan

ENTRY = "main"


@dataclass(frozen=True)
class Stage:
    """A convex part of the graph on one device, or on several that take turns.

    Attributes: `name` "s0", "s1", ... in an order they can run in, before it in a spare plan the lost device ("pi-s0"),
    in one that was made where the bundle runs its number ("+1-s0"), and in another bucket than the largest its number
    ("b1-s0"); `shape` what is in it; `module` an IRModule whose `main` takes the inputs and then, if there are any, one
    tuple of all weights, and returns a tuple of the outputs, or an `OnnxStage` where ONNX Runtime runs it; `weights` in
    the order of that tuple; `onnx_nodes` of the model that it computes; `bucket` the number of the bucket whose samples
    it computes.
    """

    name: str
    shape: StageShape
    module: Any
    weights: tuple[Weight, ...]
    onnx_nodes: tuple[str, ...]
    bucket: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, each once."""
        return sum(weight.array.nbytes for weight in self.weights)

    @property
    def hosted(self) -> dict[str, str]:
        """Device -> what the stage is called there: "s1@pi-a" where devices take turns, in their order."""
        several = len(self.shape.devices) > 1
        return {device: f"{self.name}@{device}" if several else self.name for device in self.shape.devices}


@dataclass(frozen=True)
class CutBucket:
    """What a plan makes of another bucket than the largest."""

    price: Price
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class CutPlan:
    """A plan and its stages; `lost` is the device it does without, None for the plan to start with."""

    lost: str | None
    plan: Plan
    stages: tuple[Stage, ...]
    buckets: tuple[CutBucket, ...]

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """Those of every bucket."""
        return (*self.stages, *(stage for bucket in self.buckets for stage in bucket.stages))


def partition(
    graph: PrimitiveGraph,
    module: Any,
    plan: Plan,
    lost: str | None = None,
    buckets: Sequence[tuple[Bucket, Price]] = (),
    prefix: str = "",
) -> CutPlan:
    """Emit a module for each stage of a plan; `module` is the fused model that `graph` was read off.

    `buckets` are the others than the largest, each priced as the plan places it. Names of the stages begin with
    `prefix`.
    """
    prefix = prefix or ("" if lost is None else f"{lost}-")
    others = (
        CutBucket(price, _emit_all(bucket.graph, bucket.module, price, prefix, number))
        for number, (bucket, price) in enumerate(buckets, start=1)
    )
    return CutPlan(lost, plan, _emit_all(graph, module, plan, prefix, 0), tuple(others))


def _emit_all(graph: PrimitiveGraph, module: Any, priced: Price, prefix: str, bucket: int) -> tuple[Stage, ...]:
    prefix += f"b{bucket}-" if bucket else ""
    return tuple(emit(graph, module, f"{prefix}s{number}", shape, bucket) for number, shape in enumerate(priced.stages))


def emit(graph: PrimitiveGraph, module: Any, name: str, shape: StageShape, bucket: int = 0) -> Stage:
    """The module of a stage."""
    nodes = nodes_of_primitives([graph.primitives[index] for index in shape.primitives])
    inside = sorted((*shape.primitives, *shape.repeated))
    if shape.codegen == ONNXRUNTIME:
        return Stage(name, shape, *onnx_stage(graph, inside, shape.inputs, shape.outputs), nodes, bucket)
    emitter = _Emitter(graph, module)
    stage_module = emitter.run(inside, shape.inputs, shape.outputs)
    return Stage(name, shape, stage_module, tuple(emitter.weights), nodes, bucket)


class _Emitter:
    """Writes calls of primitives into a new module, turning tensor constants into parameters."""

    def __init__(self, graph: PrimitiveGraph, module: Any) -> None:
        self.graph = graph
        self.module = module
        self.pool = graph.pool
        self.weights: list[Weight] = []
        self.weight_types: list[Any] = []
        self.position_of: dict[str, int] = {}  # name of a weight -> its place among the weights
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
        weight = self.pool.find(constant)
        if weight.name not in self.position_of:
            self.position_of[weight.name] = len(self.weights)
            self.weights.append(weight)
            self.weight_types.append(constant.ty)
        return constant

    def _weight(self, constant: Any) -> Any:
        return self.weight_variables[self.position_of[self.pool.find(constant).name]]
