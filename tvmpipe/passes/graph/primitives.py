"""The graph of primitives: which fused function runs when, on which tensors, at what cost in bytes and FLOPs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes.frontend.fallback.calls import group_called
from tvmpipe.passes.frontend.fallback.group import FallbackGroup
from tvmpipe.passes.frontend.import_onnx import tensor_spec
from tvmpipe.passes.frontend.onnx_nodes import nodes_of
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.replicas import Placement, show
from tvmpipe.passes.graph.states import GraphStates, split_off
from tvmpipe.passes.graph.weights import WeightPool
from tvmpipe.passes.kernels.base import useful_flops
from tvmpipe.passes.kernels.state_write import IN_PLACE
from tvmpipe.tensors import TensorSpec

ONNXRUNTIME = "onnxruntime"
"""The code generator of what TVM does not compile."""

OPERATORS = "tvmpipe.operators"
"""Attribute of `main` in a fused module: name of a function -> names of the operators in it, in order."""

_CONSTANT = "a result is a constant, and the model has no inputs to run it"


@dataclass(frozen=True)
class Value:
    """A tensor that a primitive or the caller makes. `producer` is None for a model input."""

    id: int
    spec: TensorSpec
    producer: int | None


@dataclass(frozen=True)
class Primitive:
    """One call of a fused primitive function.

    Attributes: `name` unique in the model and the same for every compilation of it; `function` the TIR function
    called; `operators` fused into it; `onnx_nodes` of the model that it computes, none where it only changes a layout;
    `inputs` ids of the values it reads (each once); `outputs` ids of those it
    makes; `weights` names of those it reads, each once, and `weight_bytes` what it reads of them; `constant` True when
    it depends on no input, so that any stage may recompute it; `call` the Relax expression; `fallback` what ONNX
    Runtime runs, None for what is compiled.
    """

    index: int
    name: str
    function: str
    operators: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    flops: float
    constant: bool
    call: Any
    weights: tuple[str, ...] = ()
    onnx_nodes: tuple[str, ...] = ()
    fallback: FallbackGroup | None = None

    @property
    def codegen(self) -> str:
        """The code generator of its stage, "" for that of the device's target."""
        return "" if self.fallback is None else ONNXRUNTIME


@dataclass(frozen=True)
class PrimitiveGraph:
    """Primitives in the order they run.

    `model_inputs` and `model_outputs` map names to value ids, `states` are what is neither; `value_of` maps the Relax
    variables of `main` to value ids (a tuple-typed variable to one id per field). `weight_sizes` are the bytes of
    weights by name, and `pool` has them: a name says what a weight holds, so that equal ones are one. `traffic` says of
    values that are sent more or less than once, as a mean over several kinds of samples, how often.
    """

    primitives: tuple[Primitive, ...]
    values: tuple[Value, ...]
    model_inputs: Mapping[str, int]
    model_outputs: Mapping[str, int]
    value_of: Mapping[Any, tuple[int, ...]]
    weight_sizes: Mapping[str, int] = field(default_factory=dict)
    pool: WeightPool = field(default_factory=WeightPool, compare=False)
    states: GraphStates = field(default_factory=GraphStates)
    traffic: Mapping[int, float] = field(default_factory=dict)

    def sent(self, value: int, size_bytes: float) -> float:
        """Bytes that a value is on a link, of which one that is sent once has `size_bytes`."""
        return size_bytes * self.traffic.get(value, 1.0)

    def held_weight_bytes(self, primitives: Iterable[int]) -> int:
        """Bytes of the weights that some primitives need on one device, each once."""
        names = {name for index in primitives for name in self.primitives[index].weights}
        return sum(self.weight_sizes[name] for name in names)

    @property
    def all_weight_bytes(self) -> int:
        """Bytes of the model's weights, each once."""
        return self.held_weight_bytes(range(len(self.primitives)))

    def held_state_bytes(self, primitives: Iterable[int]) -> int:
        """Bytes of the states of all sequences that some primitives read or make, on one device."""
        inside = set(primitives)
        return sum(
            self.states.size_bytes(state)
            for state, users in zip(self.states.states, self.state_users, strict=True)
            if inside.intersection(users)
        )

    @functools.cached_property
    def state_users(self) -> list[tuple[int, ...]]:
        """For each state the placeable primitives that read or make it, which share a device.

        Those that read what a step makes may be elsewhere, as it travels like any tensor, but not from a buffer that
        the step has written into, which stays where it is.
        """
        return [
            tuple(
                sorted(
                    {
                        *self.readers[state.reads],
                        *self._makers(state.makes),
                        *(self.readers[state.makes] if state.in_place else ()),
                    }
                )
            )
            for state in self.states.states
        ]

    def divided_state(self, placement: Placement) -> str | None:
        """A state whose users a placement does not put on one device, as the middle of a sentence; None for none."""
        for state, users in zip(self.states.states, self.state_users, strict=True):
            groups = {self.primitives[index].name: placement[self.primitives[index].name] for index in users}
            if len(set(groups.values())) > 1 or any(len(group) > 1 for group in groups.values()):
                where = ", ".join(f"{name} on {show(group)}" for name, group in groups.items())
                return f"{where}, which share the state {state.state.name!r} and have to be on one device"
        return None

    def _makers(self, value: int) -> tuple[int, ...]:
        producer = self.values[value].producer
        return () if producer is None else (producer,)

    @functools.cached_property
    def readers(self) -> list[list[int]]:
        """For each value, the placeable primitives that read it."""
        readers: list[list[int]] = [[] for _ in self.values]
        for primitive in self.primitives:
            if not primitive.constant:
                for value in primitive.inputs:
                    readers[value].append(primitive.index)
        return readers

    def by_name(self) -> dict[str, Primitive]:
        """Primitives that a plan places, by name."""
        return {primitive.name: primitive for primitive in self.primitives if not primitive.constant}

    def digraph(self) -> nx.DiGraph:
        """Placeable primitives by index; an edge where one reads what another makes."""
        graph = nx.DiGraph()
        for primitive in self.primitives:
            if primitive.constant:
                continue
            graph.add_node(primitive.index)
            for value in primitive.inputs:
                producer = self.values[value].producer
                if producer is not None and not self.primitives[producer].constant:
                    graph.add_edge(producer, primitive.index)
        return graph


def map_tensors(expr: Any, variable: Callable[[Any], Any], constant: Callable[[Any], Any]) -> Any:
    """`expr` (an argument of a call) with its variables and tensor constants replaced."""
    import tvm
    from tvm import relax

    if isinstance(expr, relax.Var):
        return variable(expr)
    if is_tensor_constant(expr):
        return constant(expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([map_tensors(field, variable, constant) for field in expr.fields])
    if isinstance(expr, tvm.ir.Call):
        raise UnsupportedModelError(f"a nested call {expr.op} is left after fusion; it cannot be placed")
    return expr


def is_tensor_constant(expr: Any) -> bool:
    """Whether `expr` is a weight: a constant that holds a tensor."""
    import tvm
    from tvm import relax

    return isinstance(expr, tvm.ir.GenericConst) and isinstance(expr.ty, relax.TensorType)


def extract_graph(
    module: Any, signature: Signature, groups: Sequence[FallbackGroup] = (), pool: WeightPool | None = None
) -> PrimitiveGraph:
    """Read the primitive graph off the module that the rewrites left; `groups` are what it calls of ONNX Runtime.

    `pool` has weights that are known already.

    Raises UnsupportedModelError where a result's shape depends on data or control flow is left.
    """
    return _Extractor(module, signature, groups, pool).run()


class _Extractor:
    def __init__(
        self, module: Any, signature: Signature, groups: Sequence[FallbackGroup], pool: WeightPool | None
    ) -> None:
        self.groups = {group.symbol: group for group in groups}
        self.module = module
        self.signature = signature
        attributes = module["main"].attrs
        known = attributes.get(OPERATORS, {})
        self.operators = {str(name): tuple(map(str, inside)) for name, inside in known.items()}
        self.values: list[Value] = []
        self.value_of: dict[Any, tuple[int, ...]] = {}
        self.primitives: list[Primitive] = []
        self.flops_of: dict[str, float] = {}
        self.pool = pool or WeightPool()
        self.weight_sizes: dict[str, int] = {}
        self.written: dict[int, int] = {}  # a value that is made by writing into another one -> that one

    def run(self) -> PrimitiveGraph:
        from tvm import relax

        main = self.module["main"]
        kept = [str(name) for name in main.attrs["tvmpipe.inputs"]]
        specs = {spec.name: spec for spec in self.signature.inputs}
        model_inputs = {}
        # The importer turns every graph input into a parameter, in order, but not those with an initializer.
        for name, parameter in zip([name for name in kept if name in specs], main.params, strict=True):
            model_inputs[name] = self._add_value(specs[name], None)
            self.value_of[parameter] = (model_inputs[name],)
        for block in main.body.blocks:
            for binding in block.bindings:
                if not isinstance(binding, relax.VarBinding):
                    raise UnsupportedModelError("a shape is only known when the model runs; it cannot be compiled")
                self._bind(binding.var, binding.value)
        results = self._ids(main.body.body)
        names = [spec.name for spec in self.signature.outputs]
        outputs = dict(zip(names, results, strict=True))
        for name, value in outputs.items():
            producer = self.values[value].producer
            if producer is None or self.primitives[producer].constant:
                raise UnsupportedModelError(f"output {name!r} is a constant of a model that has no inputs to run it")
        states = split_off(self.signature.states, specs, model_inputs, outputs, self.written)
        return PrimitiveGraph(
            tuple(self.primitives),
            tuple(self.values),
            model_inputs,
            outputs,
            self.value_of,
            self.weight_sizes,
            self.pool,
            GraphStates(states, self.signature.sequences),
        )

    def _add_value(self, spec: TensorSpec, producer: int | None) -> int:
        self.values.append(Value(len(self.values), spec, producer))
        return len(self.values) - 1

    def _bind(self, var: Any, expr: Any) -> None:
        import tvm
        from tvm import relax

        if isinstance(expr, tvm.ir.Call):
            self._add_primitive(var, expr)
        elif isinstance(expr, relax.TupleGetItem):
            self.value_of[var] = (self._ids(expr.tuple_value)[expr.index],)
        elif isinstance(expr, relax.Var | relax.Tuple):
            self.value_of[var] = self._ids(expr)
        elif isinstance(expr, relax.If):
            raise UnsupportedModelError("the model has an If whose condition is not constant; it cannot be placed")
        else:
            raise UnsupportedModelError(_CONSTANT)

    def _ids(self, expr: Any) -> tuple[int, ...]:
        from tvm import relax

        if isinstance(expr, relax.Var):
            return self.value_of[expr]
        if isinstance(expr, relax.Tuple):
            return tuple(value for field in expr.fields for value in self._ids(field))
        raise UnsupportedModelError(_CONSTANT)

    def _add_primitive(self, var: Any, call: Any) -> None:
        from tvm import relax

        index = len(self.primitives)
        group = group_called(call, self.groups)
        in_place = getattr(call.op, "name", "") == IN_PLACE
        is_tir = in_place or getattr(call.op, "name", "") == "relax.call_tir"
        function = call.args[0].name_hint if is_tir else str(getattr(call.op, "name", call.op))
        function = function if group is None else group.name
        types = list(var.ty.fields) if isinstance(var.ty, relax.TupleType) else [var.ty]
        nodes = tuple(node.label for node in nodes_of(var))
        made_by = f"{function} ({', '.join(nodes)})" if nodes else function
        specs: Sequence[TensorSpec]
        if group is None:
            specs = [tensor_spec(ty, f"result {i} of {made_by}") for i, ty in enumerate(types)]
        else:
            specs = group.outputs
        read: list[int] = []
        weights: list[int] = []
        names: dict[str, None] = {}

        def variable(expr: Any) -> Any:
            read.extend(self.value_of[expr])
            return expr

        def constant(expr: Any) -> Any:
            weights.append(tensor_spec(expr.ty, "a weight").size_bytes)
            weight = self.pool.find(expr)
            names[weight.name] = None
            self.weight_sizes[weight.name] = weight.array.nbytes
            return expr

        for argument in call.args:
            map_tensors(argument, variable, constant)
        inputs = tuple(dict.fromkeys(read))
        producers = [self.values[value].producer for value in inputs]
        fixed = all(p is not None and self.primitives[p].constant for p in producers)
        if fixed and group is not None:
            raise UnsupportedModelError(f"{made_by} depends on no input of the model; it cannot be placed")
        outputs = tuple(self._add_value(spec, index) for spec in specs)
        self.value_of[var] = outputs
        input_bytes = sum(self.values[value].spec.size_bytes for value in inputs)
        output_bytes = sum(spec.size_bytes for spec in specs)
        if in_place:  # what is new is read and written, and no more of the buffer
            self.written[outputs[0]] = read[0]
            input_bytes -= output_bytes
            output_bytes = self.values[read[1]].spec.size_bytes
        self.primitives.append(
            Primitive(
                index=index,
                name=f"{index:03d}.{function}",
                function=function,
                operators=self.operators.get(function, (function,)) if group is None else group.operators,
                onnx_nodes=nodes,
                inputs=inputs,
                outputs=outputs,
                weight_bytes=sum(weights),
                input_bytes=input_bytes,
                output_bytes=output_bytes,
                flops=group.flops if group is not None else self._flops(function) if is_tir else 0.0,
                constant=fixed,
                call=call,
                weights=tuple(names),
                fallback=group,
            )
        )

    def _flops(self, function: str) -> float:
        import tvm
        from tvm.s_tir.analysis import estimate_tir_flops

        if function not in self.flops_of:
            primitive = self.module[function]
            try:
                # A kernel says what is useful work: it may do more (padding) or less (Winograd).
                self.flops_of[function] = useful_flops(primitive) or float(
                    estimate_tir_flops(tvm.IRModule({"main": primitive}))
                )
            except Exception:  # noqa: BLE001  # loops whose extent it cannot see, as in sorts; traffic prices those
                self.flops_of[function] = 0.0
        return self.flops_of[function]
