"""The walk over a model's nodes that folds them: what it knows on the way, and what expansions ask of it."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper, numpy_helper

from tvmpipe.passes.frontend.folding.expand_functions import expanded
from tvmpipe.passes.frontend.folding.known_values import RANDOM, Array, KnownValues, without_elements
from tvmpipe.passes.frontend.onnx_values import (
    STANDARD_DOMAINS,
    all_names,
    all_nodes,
    first_output,
    has_graphs,
    needed_nodes,
    reads,
    rename_reads,
    static_shape,
)

MOST_NODES = 1000
"""A Loop or Scan that leaves more nodes than this, all trips together, stays as it is."""
_MOST_TAKEN = 4 * MOST_NODES  # ... or of which more have to be looked at

# What changes from node to node.
_STATE = ("types", "arrays", "tensors", "alias", "sequences", "optionals", "nodes", "_seen", "_made")


class CannotExpandError(Exception):
    """The node amounts to no fixed set of nodes, or to too many; the text says why."""


class Folder(KnownValues):
    """The walk. Values that expansions name go by the names that `alias` gives them.

    `expansions` are functions, by operator, of the walk and a node: they take nodes of their own in its place and
    `bind` the node's results to theirs, or raise CannotExpandError, after which the node is as it was. `total` makes of
    a node one that cannot fail, or raises CannotExpandError.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        expansions: Mapping[str, Callable[[Folder, onnx.NodeProto], None]],
        total: Callable[[Folder, onnx.NodeProto], onnx.NodeProto],
    ) -> None:
        super().__init__(model)
        self.alias: dict[str, str] = {}  # a value -> the equal one that stands for it
        self.sequences: dict[str, tuple[str, ...]] = {}  # their elements
        self.optionals: dict[str, str | None] = {}  # what they hold, None for nothing
        self.nodes: list[onnx.NodeProto] = []  # those that are left
        self.kept: dict[str, str] = {}  # first result of a node that no expansion takes -> why
        self.outputs = {value.name for value in model.graph.output}
        self._expansions, self._total = expansions, total
        self._initial = {tensor.name: tensor for tensor in model.graph.initializer}
        self._names = set(all_names(model.graph))
        self._node_names = Counter(node.name for node in all_nodes(model.graph))
        self._numbers: Counter[str] = Counter()
        self._seen: dict[Any, list[str]] = {}  # a node without its results -> the results of the first such
        self._made: set[str] = set()  # sequences and optionals that a node makes after all
        self._speculative = False
        self._within = False  # an expansion that must succeed as a whole
        self._first: int | None = None  # how many nodes were left before the outermost loop
        self._taken = 0  # nodes since then

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        for name, tensor in self._initial.items():
            self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            self.know(name, numpy_helper.to_array(tensor), tensor)
        for value in graph.input:
            if value.name not in self._initial:
                self.types[value.name] = value.type
                empty = without_elements(value.type)
                if empty is not None:
                    self.alias[value.name] = self.constant(empty)
        for sparse in graph.sparse_initializer:
            self.types[sparse.values.name] = helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
        for node in graph.node:
            self.take(node)
        for name in self.outputs:
            self._make(name)
        return self._written()

    def take(self, node: onnx.NodeProto) -> None:
        """Fold a node, or expand it, or leave it in the model."""
        node = self.as_cast(self._renamed(node))
        if self._speculative:
            node = self._total(self, node)
        nested = has_graphs(node)
        if nested and self.fold(node):
            return
        if self._within:
            self._count()
        if self._expand(node):
            return
        if self._within and (nested or self.is_random(node)):
            raise CannotExpandError(f"{node.op_type} inside it may give something else each time")
        if not nested and (self._merge(node) or self.fold(node)):
            return
        inside = expanded(node, self.types, self.versions)
        if inside is not None:
            for one in inside:
                self.take(one)
            return
        if self._within:
            self._check_fixed(node)
        for name in reads(node):
            self._make(name)
        self.nodes.append(node)

    def emit(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Take a node of one result, and return the name of that."""
        result = self.fresh(operator.lower())
        self.take(helper.make_node(operator, inputs, [result], **attributes))
        return self.alias.get(result, result)

    def constant(self, array: Array) -> str:
        """The name of a new value that is known."""
        name = self.fresh("constant")
        self.types[name] = helper.make_tensor_type_proto(
            helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)
        )
        self.know(name, array)
        return name

    def fresh(self, name: str) -> str:
        """A name like this one that no value has yet."""
        made = name
        while made in self._names:
            self._numbers[name] += 1
            made = f"{name}/{self._numbers[name]}"
        self._names.add(made)
        return made

    def node_name(self, name: str, mark: str) -> str:
        """What a copy of a node is called, which no other node may be: as it is where `mark` is ""."""
        if not name or (not mark and self._node_names[name] < 2):
            return name
        made = f"{name}/{mark}"
        while self._node_names[made]:
            self._numbers[made] += 1
            made = f"{name}/{mark}/{self._numbers[made]}"
        self._node_names[made] += 1
        return made

    def bind(self, name: str, value: str) -> None:
        """Let `name`, what a node that is expanded makes, be `value`; a result of the model keeps its name."""
        value = self.alias.get(value, value)
        if name in self.outputs:
            if value in self.types:
                self.types[name] = self.types[value]
            if value in self.sequences:
                self.sequences[name] = self.sequences[value]
            elif value in self.optionals:
                self.optionals[name] = self.optionals[value]
            elif value in self.arrays:
                self.know(name, self.arrays[value])
            else:
                self.nodes.append(helper.make_node("Identity", [value], [name]))
        elif name:
            self.alias[name] = value

    @contextlib.contextmanager
    def whole(self, *, loop: bool = False) -> Iterator[None]:
        """Within, what is taken must have a fixed shape and be the same each time it runs, and of a loop not too much.

        Raises CannotExpandError, after which the outermost of such nodes stays as it was.
        """
        within, first = self._within, self._first
        self._within = True
        if loop and first is None:
            self._first, self._taken = len(self.nodes), 0
        try:
            yield
        finally:
            self._within, self._first = within, first

    @contextlib.contextmanager
    def speculation(self) -> Iterator[None]:
        """Within, nodes may run where the model would not run them, so that they must not fail."""
        before, self._speculative = self._speculative, True
        try:
            yield
        finally:
            self._speculative = before

    def _snapshot(self) -> dict[str, Any]:
        return {name: copy.copy(getattr(self, name)) for name in _STATE}

    def _expand(self, node: onnx.NodeProto) -> bool:
        """Whether nodes were taken in this one's place."""
        expansion = self._expansions.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        if expansion is None:
            return False
        before = self._snapshot() if has_graphs(node) and not self._within else None
        try:
            expansion(self, node)
        except CannotExpandError as error:
            if before is None:
                if self._within:
                    raise
            else:
                vars(self).update(before)
            self.kept[first_output(node)] = str(error)
            return False
        return True

    def _count(self) -> None:
        if self._first is not None:
            self._taken += 1
            if self._taken > _MOST_TAKEN or len(self.nodes) - self._first >= MOST_NODES:
                raise CannotExpandError(f"its trips take more than {MOST_NODES} nodes together")

    def _check_fixed(self, node: onnx.NodeProto) -> None:
        kinds = [self.types.get(name) for name in node.output if name]
        if any(kind is not None and static_shape(kind) is None for kind in kinds):
            raise CannotExpandError(f"the shape of what {node.op_type} makes depends on the data")

    def _make(self, name: str) -> None:
        """See that a sequence or an optional is made by a node, for a reader that is left."""
        if name in self._made or not (name in self.sequences or name in self.optionals):
            return
        self._made.add(name)
        if name in self.optionals:
            self._make_optional(name, self.optionals[name])
            return
        elements = self.sequences[name]
        if not elements:
            dtype = self.types[name].sequence_type.elem_type.tensor_type.elem_type
            self.nodes.append(helper.make_node("SequenceEmpty", [], [name], dtype=dtype))
            return
        element = onnx.TypeProto()
        element.tensor_type.elem_type = self.types.get(elements[0], element).tensor_type.elem_type
        self.types[name] = helper.make_sequence_type_proto(element)
        self.nodes.append(helper.make_node("SequenceConstruct", elements, [name]))

    def _make_optional(self, name: str, held: str | None) -> None:
        if held is None:
            kind = self.types[name].optional_type.elem_type
            self.nodes.append(helper.make_node("Optional", [], [name], type=kind))
            return
        self._make(held)
        self.types[name] = helper.make_optional_type_proto(self.types[held])
        self.nodes.append(helper.make_node("Optional", [held], [name]))

    def _renamed(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy that reads what stands for its inputs."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        rename_reads(copied, self.alias)
        return copied

    def _merge(self, node: onnx.NodeProto) -> bool:
        """Whether an equal node was taken before, whose results this one's readers read then."""
        if node.op_type in RANDOM or self.outputs.intersection(node.output):
            return False
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        bare.ClearField("name")
        bare.ClearField("doc_string")
        key = bare.op_type, len(node.output), tuple(bool(name) for name in node.output)
        del bare.output[:]
        bare_key = (*key, bare.SerializeToString(deterministic=True))
        first = self._seen.setdefault(bare_key, list(node.output))
        if first == list(node.output):
            return False
        self.alias.update(zip(node.output, first, strict=True))
        return True

    def _written(self) -> onnx.ModelProto:
        """The model of the nodes that are left and the constants that they read."""
        graph = self.model.graph
        nodes = needed_nodes(self.nodes, self.outputs)
        read = {name for node in nodes for name in reads(node)} | self.outputs
        folded = onnx.ModelProto()
        folded.CopyFrom(_without_graph(self.model))
        folded.graph.name, folded.graph.doc_string = graph.name, graph.doc_string
        folded.graph.node.extend(nodes)
        folded.graph.input.extend(value for value in graph.input if value.name not in self._initial)
        made = {name for node in nodes for name in node.output}
        for value in graph.output:
            kind = self.types.get(value.name)
            if kind is None:
                kind = onnx.TypeProto()
                kind.CopyFrom(value.type)
                if kind.HasField("tensor_type"):
                    kind.tensor_type.ClearField("shape")
            folded.graph.output.append(helper.make_value_info(value.name, kind))
        values = (name for name in self.types if name in made and name not in self.outputs)
        folded.graph.value_info.extend(helper.make_value_info(name, self.types[name]) for name in values)
        for name, array in self.arrays.items():
            if name in read and name not in made:
                known = self._initial.get(name) or self.tensors.get(name)
                folded.graph.initializer.append(known or numpy_helper.from_array(array, name))
        folded.graph.sparse_initializer.extend(graph.sparse_initializer)
        return folded


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    bare.opset_import.extend(model.opset_import)
    bare.metadata_props.extend(model.metadata_props)
    return bare
