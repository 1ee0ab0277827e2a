"""A model with a node in place of each group of nodes that ONNX Runtime runs, and these groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tvmpipe.errors import UnsupportedModelError, reason_of
from tvmpipe.passes.frontend.agreement import seeded_sample
from tvmpipe.passes.frontend.fallback.flops import flops_of_nodes
from tvmpipe.passes.frontend.fallback.group import DOMAIN, FallbackGroup
from tvmpipe.passes.frontend.fallback.grouping import grouped
from tvmpipe.passes.frontend.fallback.value_types import ValueType, inferred_types, read_types, sampled
from tvmpipe.passes.frontend.onnx_values import first_output, has_graphs, needed_nodes, reads
from tvmpipe.passes.frontend.onnxruntime_session import session_of
from tvmpipe.passes.frontend.trace_nodes import node_label
from tvmpipe.passes.frontend.unsupported import DTYPES, label
from tvmpipe.passes.frontend.weightless import large_weights
from tvmpipe.tensors import TensorSpec

Reasons = Mapping[int, str]
"""Place of a node in the model's graph -> why TVM does not run it, a sentence."""

_UNTYPED = ValueType(0, None)


@dataclass(frozen=True)
class Split:
    """`model` is what TVM imports: with a node of the domain `DOMAIN` for each of `groups`, whose attribute "group" is
    its number. `places` are the nodes of each group in the given model.
    """

    model: onnx.ModelProto
    groups: tuple[FallbackGroup, ...]
    places: tuple[tuple[int, ...], ...]


def split(
    model: onnx.ModelProto, inputs: Sequence[TensorSpec], refused: Reasons, types: Mapping[str, ValueType]
) -> Split:
    """Give ONNX Runtime the `refused` nodes of a model, and those that read what has no shape before it is computed.

    Raises UnsupportedModelError where ONNX Runtime does not run them either, or a result of the model cannot travel.
    """
    return _Splitter(model, inputs, refused, types).run()


class _Splitter:
    def __init__(
        self, model: onnx.ModelProto, inputs: Sequence[TensorSpec], refused: Reasons, types: Mapping[str, ValueType]
    ) -> None:
        kept = {value.name for value in model.graph.input}
        self.model, self.types = model, types
        self.inputs = [spec for spec in inputs if spec.name in kept]
        self.nodes = list(model.graph.node)
        self.reads = [list(dict.fromkeys(reads(node))) for node in self.nodes]
        self.maker = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self.results = {value.name for value in model.graph.output}
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.weights = {
            name: tensor for name, tensor in large_weights(model).items() if self._type(name).dtype is not None
        }
        self.refused = refused
        self.reasons = self._with_readers(dict(refused))
        self.fixed = self._fixed()

    def run(self) -> Split:
        edges = [(self.maker[name], at) for at, names in enumerate(self.reads) for name in names if name in self.maker]
        tied = [(a, b) for a, b in edges if a in self.reasons and self._confined(a, b)]
        groups = [sorted(group) for group in grouped(edges, self.reasons, tied)]
        for group in groups:
            for place in group:
                between = f"node {label(self.nodes[place])} lies between nodes that only ONNX Runtime runs"
                self.reasons.setdefault(place, between)
        interfaces = [self._interface(group) for group in groups]
        boundary = {name for _, read, made in interfaces for name in (*read, *made)}
        inside = {name for group in groups for place in group for name in self.nodes[place].output if name}
        samples = sampled(self.model, self.inputs, boundary | inside)
        shapes = self._shapes(samples)
        made = tuple(
            self._group(number, group, *interface, samples, shapes)
            for number, (group, interface) in enumerate(zip(groups, interfaces, strict=True))
        )
        return Split(self._rewritten(groups, made), made, tuple(map(tuple, groups)))

    def _type(self, name: str) -> ValueType:
        return self.types.get(name, _UNTYPED)

    def _with_readers(self, reasons: dict[int, str]) -> dict[int, str]:
        """With the nodes that read what has no shape, or cannot travel, before it is computed."""
        for place, names in enumerate(self.reads):
            for name in names:
                maker = self.maker.get(name)
                if place in reasons or maker not in reasons:
                    continue
                kind = self._type(name)
                if kind.dtype is None or kind.static is None:
                    what = "is no tensor of numbers" if kind.dtype is None else "has a shape that depends on the data"
                    node = self.nodes[place]
                    reasons[place] = f"node {label(node)} ({node.op_type}) reads {name!r}, which {what}"
        return reasons

    def _confined(self, maker: int, reader: int) -> bool:
        """Whether something that passes between two nodes cannot travel between stages."""
        passed = set(self.nodes[maker].output) & set(self.reads[reader])
        return any(self._type(name).dtype is None for name in passed)

    def _fixed(self) -> set[int]:
        """Nodes that depend on no input of the model."""
        fixed: set[int] = set()
        for place, names in enumerate(self.reads):
            if all(name in self.tensors or self.maker.get(name) in fixed for name in names):
                fixed.add(place)
        return fixed

    def _interface(self, group: Sequence[int]) -> tuple[list[int], list[str], list[str]]:
        """Nodes of the group's model, the values that it reads, and those of its own that others read.

        What depends on no input is computed again in each group that reads it.
        """
        own_places = set(group)
        members = set(group)
        pending = list(group)
        while pending:
            for name in self.reads[pending.pop()]:
                place = self.maker.get(name)
                if place in self.fixed and place not in members and place not in self.reasons:
                    members.add(place)
                    pending.append(place)
        inside = sorted(members)
        made = {name for place in inside for name in self.nodes[place].output if name}
        read = dict.fromkeys(name for place in inside for name in self.reads[place] if name not in made)
        outside = {name for place, names in enumerate(self.reads) if place not in own_places for name in names}
        own = [name for place in group for name in self.nodes[place].output if name]
        given = [name for name in read if name not in self.tensors]
        # Without any it would never be its turn.
        given = given or [spec.name for spec in self.inputs[:1]]
        return inside, given, [name for name in own if name in outside or name in self.results]

    def _group(
        self,
        number: int,
        group: Sequence[int],
        inside: Sequence[int],
        given: Sequence[str],
        made: Sequence[str],
        samples: Sequence[Mapping[str, NDArray[np.generic]]],
        shapes: Mapping[str, Sequence[int]],
    ) -> FallbackGroup:
        read = {name for place in inside for name in self.reads[place]}
        weights = [name for name in self.weights if name in read]
        first = min(group, key=lambda place: (place not in self.refused, place))
        model = self._model(number, inside, given, weights, made)
        self._check(model, first)
        outputs = tuple(self._spec(name, samples) for name in made)
        operators = [self.nodes[place].op_type for place in group]
        lead = self.nodes[first].op_type
        operators.remove(lead)
        working = max((self._most_bytes(group, made, one) for one in samples), default=0)
        sample = (
            {name: samples[0][name] for name in given}
            if samples
            else seeded_sample([self._spec(name, samples) for name in given], 0)
        )
        return FallbackGroup(
            number=number,
            reasons={node_label(self.nodes[place]): self.reasons[place] for place in group},
            operators=(lead, *operators),
            model=model,
            inputs=tuple(given),
            weights=tuple(weights),
            outputs=outputs,
            flops=flops_of_nodes(self._with_inner_types(model, group), shapes),
            working_bytes=max(working, sum(spec.size_bytes for spec in outputs)),
            sample=sample,
        )

    def _most_bytes(
        self, group: Sequence[int], kept: Collection[str], sample: Mapping[str, NDArray[np.generic]]
    ) -> int:
        """The most that is there at once of what a group's nodes make; what is `kept` stays."""
        last = {name: place for place in group for name in self.reads[place]}
        alive: dict[str, int] = {}
        most = 0
        for place in group:
            alive.update((name, sample[name].nbytes) for name in self.nodes[place].output if name in sample)
            most = max(most, sum(alive.values()))
            alive = {name: size for name, size in alive.items() if name in kept or last.get(name, -1) > place}
        return most

    def _shapes(self, samples: Sequence[Mapping[str, NDArray[np.generic]]]) -> dict[str, Sequence[int]]:
        """Of values, as in the first sample; where there is none, those that are fixed."""
        known: dict[str, Sequence[int]] = {
            name: one.static for name, one in self.types.items() if one.static is not None
        }
        known.update((name, tuple(tensor.dims)) for name, tensor in self.tensors.items())
        known.update((name, array.shape) for one in samples[:1] for name, array in one.items())
        return known

    def _with_inner_types(self, model: onnx.ModelProto, group: Sequence[int]) -> list[onnx.NodeProto]:
        """The nodes of a group; where some have graphs inside, with what ONNX infers of values there."""
        nodes = [self.nodes[place] for place in group]
        if not any(map(has_graphs, nodes)):
            return nodes
        inferred = inferred_types(model)
        own = {first_output(node) for node in nodes}
        return [node for node in inferred.graph.node if first_output(node) in own]

    def _model(
        self, number: int, inside: Sequence[int], given: Sequence[str], weights: Sequence[str], made: Sequence[str]
    ) -> onnx.ModelProto:
        read = {name for place in inside for name in self.reads[place]}
        graph = helper.make_graph(
            [self.nodes[place] for place in inside],
            f"group{number}",
            [self._declared(name) for name in (*given, *weights)],
            [onnx.ValueInfoProto(name=name) for name in made],
            [tensor for name, tensor in self.tensors.items() if name in read and name not in weights],
        )
        graph.sparse_initializer.extend(
            tensor for tensor in self.model.graph.sparse_initializer if tensor.values.name in read
        )
        model = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        model.functions.extend(self.model.functions)
        model.producer_name = ""
        return model

    def _declared(self, name: str) -> onnx.ValueInfoProto:
        """A value as an input of a group's model; extents that are not known stay open."""
        known = self._type(name)
        if known.dtype is None:
            raise UnsupportedModelError(
                f"ONNX Runtime would have to run a part of the model that reads {name!r}, which is no tensor of numbers"
            )
        return helper.make_tensor_value_info(name, known.kind, known.shape)

    def _spec(self, name: str, samples: Sequence[Mapping[str, NDArray[np.generic]]]) -> TensorSpec:
        """The tensor as others see it: where the model cannot say its extents, as large as in the samples."""
        known = self._type(name)
        if known.dtype is None:
            what = "output" if name in self.results else "tensor"
            allowed = ", ".join(sorted(DTYPES))
            raise UnsupportedModelError(f"{what} {name!r} is no tensor of numbers; its elements may be of {allowed}")
        seen = [one[name].shape for one in samples if name in one]
        shape = known.shape if known.shape is not None else (None,) * (len(seen[0]) if seen else 0)
        if known.shape is None and not seen:
            raise UnsupportedModelError(f"nothing says how many axes {name!r} has; it cannot be planned")
        most = [max((one[axis] for one in seen if len(one) == len(shape)), default=1) for axis in range(len(shape))]
        return TensorSpec(
            name=name,
            shape=tuple(max(1, most[axis]) if extent is None else extent for axis, extent in enumerate(shape)),
            dtype=known.dtype,
            open=tuple(axis for axis, extent in enumerate(shape) if extent is None),
        )

    def _check(self, model: onnx.ModelProto, place: int) -> None:
        """ONNX Runtime takes it."""
        try:
            session_of(model.SerializeToString())
        except Exception as error:  # its exceptions have no common base
            node = self.nodes[place]
            said = [self.reasons[place].rstrip("."), read_types(node, self.types)]
            said.append(f"ONNX Runtime does not run it either: {reason_of(error)}")
            said.append(f"a converter for {node.op_type} would help (docs/contributing/operator.md)")
            raise UnsupportedModelError("; ".join(said)) from error

    def _rewritten(self, groups: Sequence[Sequence[int]], made: Sequence[FallbackGroup]) -> onnx.ModelProto:
        graph = self.model.graph
        left = onnx.ModelProto()
        left.ir_version, left.producer_name = self.model.ir_version, self.model.producer_name
        left.opset_import.extend(self.model.opset_import)
        left.functions.extend(self.model.functions)
        left.graph.name = graph.name
        left.graph.input.extend(graph.input)
        left.graph.output.extend(graph.output)
        # Groups compute for themselves what depends on no input.
        nodes = needed_nodes(self._ordered(groups, made), self.results)
        left.graph.node.extend(nodes)
        read = {name for node in nodes for name in reads(node)} | self.results
        left.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
        left.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in read)
        return left

    def _ordered(self, groups: Sequence[Sequence[int]], made: Sequence[FallbackGroup]) -> list[onnx.NodeProto]:
        """Nodes for groups, and those in none, each after what it reads."""
        group_at = {place: number for number, group in enumerate(groups) for place in group}
        nodes = [_stand_in(group) for group in made]
        nodes += [node for place, node in enumerate(self.nodes) if place not in group_at]
        maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
        order: dict[int, None] = {}
        for start in range(len(nodes)):
            pending = [start]
            while pending:
                missing = [maker[name] for name in reads(nodes[pending[-1]]) if name in maker]
                missing = [place for place in missing if place not in order]
                if missing:
                    pending.extend(missing)
                else:
                    order.setdefault(pending.pop())
        return [nodes[place] for place in order]


def _stand_in(group: FallbackGroup) -> onnx.NodeProto:
    return helper.make_node(
        "Group",
        [*group.inputs, *group.weights],
        [spec.name for spec in group.outputs],
        name=group.symbol,
        domain=DOMAIN,
        group=group.number,
    )
