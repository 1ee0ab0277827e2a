"""Random models, grown node by node on a sample, so that every shape and type is what ONNX makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

import benchmarks.random_graphs.operators  # noqa: F401  # registers the makers
from benchmarks.random_graphs.judges import answers, model_of, tensor_info, typed, valid
from benchmarks.random_graphs.pool import Array, Pool, Value
from benchmarks.random_graphs.proposal import MAKERS, Proposal
from tvmpipe.equality import Comparison, Expected, compare
from tvmpipe.passes.frontend.onnx_values import reads, renamed_node

OPSETS = (13, 17, 18, 20, 21, 22, 23, 23, 24, 26, 28)
_MOST_ELEMENTS = 4096
_TRIES = 5
_NOISE, _ABSOLUTE_NOISE = 1e-3, 1e-5
_LARGEST = 1e4  # beyond, float32 sums of a few terms cancel to nothing


@dataclass(frozen=True)
class Step:
    """A proposal that became nodes of the model, with the names of what they read and make."""

    nodes: Sequence[onnx.NodeProto]
    weights: Mapping[str, Array]
    results: tuple[str, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a value of the graph is for the sample: `other` where onnx's reference implementation says otherwise.

    `half`: it was computed in half precision; `apart`: steps that a quantised number may be off; `open`: data decide
    on its shape.
    """

    array: Array
    other: Array | None = None
    half: bool = False
    apart: int = 0
    open: bool = False

    def compare(self, have: Array | None, *, half: bool = False) -> Comparison:
        """Compare a result with both, the nearer counts."""
        found = self._compare(have, self.array, half)
        if found.verdict == "different" and self.other is not None:
            again = self._compare(have, self.other, half)
            return again if again.verdict != "different" else found
        return found

    def _compare(self, have: Array | None, want: Array, half: bool) -> Comparison:
        """As `equality` has it, but for noise that a few nodes amplify, which no wrong operator is as small as."""
        found = self._strictly(have, want, half)
        noise = _NOISE * found.largest + _ABSOLUTE_NOISE
        if found.verdict == "different" and want.dtype.kind == "f" and found.difference <= noise:
            return replace(found, verdict="equal")
        return found

    def _strictly(self, have: Array | None, want: Array, half: bool) -> Comparison:
        expected = Expected({"": want}, half=self.half or half, steps={"": 0.2})
        floats = want.dtype.kind == "f"
        return compare(
            {} if have is None else {"": have}, expected, steps=self.apart if self.apart or not floats else 0
        )


@dataclass(frozen=True)
class RandomModel:
    """A model, the sample that it was grown on, its steps, and what each of its values is."""

    model: onnx.ModelProto
    sample: Mapping[str, Array]
    steps: Sequence[Step]
    answers: Mapping[str, Answer]

    @property
    def operators(self) -> Counter[str]:
        """How often it has each."""
        return Counter(name for step in self.steps for name in step.operators)

    @property
    def opset(self) -> int:
        """The version of ONNX's operators."""
        return max(entry.version for entry in self.model.opset_import if not entry.domain)


class _Growing:
    """A graph that grows."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = int(self.random.choice(OPSETS))
        self.values: list[Value] = []
        floats = str(self.random.choice(["float32"] * 8 + ["float64", "float16"]))
        self.pool = Pool(self.random, self.values, floats, wild=bool(self.random.random() < 0.3))
        self.inputs: dict[str, Array] = {}
        self.weights: dict[str, Array] = {}
        self.steps: list[Step] = []
        self.answers: dict[str, Answer] = {}

    def propose(self, operator: str) -> bool:
        """Whether one more node of this operator was taken."""
        try:
            return self.grow(MAKERS[operator](self.pool, operator))
        except LookupError:
            return False

    def model(self) -> RandomModel:
        """What has grown so far."""
        return assembled(self.steps, self.inputs, self.answers, self.opset)

    def grow(self, proposal: Proposal) -> bool:
        """Take a proposal if somebody runs it and something can be learned from it."""
        number = len(self.steps)
        given, fresh, weights, names = {}, [], {}, {}
        exact, half = True, False
        for place, one in enumerate(proposal.inputs):
            if one is None:
                continue
            if isinstance(one, Value):
                name, array = one.name or f"x{number}_{place}", one.array
                exact = exact and one.exact
                given[name] = array
                half = half or (one.name in self.answers and self.answers[one.name].half)
                if not one.name:
                    fresh.append(Value(name, array))
            else:
                name, array = f"w{number}_{place}", np.asarray(one)
                weights[name] = array
            names[f"i{place}"] = name
            half = half or array.dtype == np.float16
        if proposal.steps and not exact:
            return False
        results = tuple(f"v{number}_{place}" for place in range(proposal.outputs))
        names |= {f"o{place}": name for place, name in enumerate(results)}
        inner = {name for node in proposal.nodes for name in node.output if name and name not in names}
        names |= {name: f"n{number}_{name}" for name in inner}
        nodes = [renamed_node(node, names) for node in proposal.nodes]
        for place, node in enumerate(nodes):
            node.name = f"n{number}" if len(nodes) == 1 else f"n{number}_{place}"
        asked = {name for node in nodes for name in reads(node)}
        given = {name: array for name, array in given.items() if name in asked}
        weights = {name: array for name, array in weights.items() if name in asked}
        types = {name: array.dtype for name, array in (*given.items(), *weights.items())}
        if not valid(nodes, self.opset) or not all(typed(node, types, self.opset) for node in nodes):
            return False
        made, other = answers(nodes, given, weights, results, self.opset, older=not proposal.last)
        arrays = made if proposal.last else made or other
        if arrays is None or not all(self._useful(array) for array in arrays):
            return False
        half = (
            half or any(array.dtype == np.float16 for array in arrays) or "BFLOAT16" in str(nodes[0]) or _brain(nodes)
        )
        whole = all(array.dtype.kind in "iub" for array in (*given.values(), *arrays))
        as_exact = exact and (proposal.moves or whole)
        found: dict[str, Answer] = {}
        for place, (name, array) in enumerate(zip(results, arrays, strict=True)):
            answer = Answer(array, None, half, proposal.apart, open=proposal.last)
            if made is not None and other is not None and answer.compare(other[place]).verdict == "different":
                answer = replace(answer, other=other[place])
            found[name] = answer
        disputed = any(answer.other is not None for answer in found.values())
        self.answers |= found
        self.steps.append(Step(nodes, weights, results, tuple(dict.fromkeys(proposal.operators))))
        self.inputs |= {value.name: value.array for value in fresh if value.name in asked}
        self.weights |= weights
        self.values += [value for value in fresh if value.name in asked]
        if not (proposal.last or disputed):
            self.values += [Value(name, one.array, as_exact) for name, one in found.items()]
        return True

    def _useful(self, array: Array) -> bool:
        if array.dtype.kind not in "fiub" or array.size > _MOST_ELEMENTS or not (array.size or self.pool.wild):
            return False
        if array.dtype.kind != "f":
            return True
        finite = array[np.isfinite(array)]
        small = bool(np.abs(finite).max(initial=0) < _LARGEST)
        return small and (self.pool.wild or finite.size == array.size)


def _brain(nodes: Sequence[onnx.NodeProto]) -> bool:
    kinds = (onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16)
    return any(attribute.name == "to" and attribute.i in kinds for node in nodes for attribute in node.attribute)


def random_model(seed: int, nodes: int, *, only: Sequence[str] = ()) -> RandomModel:
    """A model of about so many nodes, the same for the same seed; of the operators in `only` where there are any."""
    growing = _Growing(seed)
    names = list(only or MAKERS)
    for _ in range(20 * nodes):
        if len(growing.steps) == nodes:
            break
        growing.propose(names[int(growing.random.integers(len(names)))])
    return growing.model()


def model_with(operators: Sequence[str], seed: int) -> RandomModel | None:
    """A model with a node of each of these makers, in their order, where one of a few tries succeeds; None where none
    does."""
    growing = _Growing(seed)
    for operator in operators:
        any(growing.propose(operator) for _ in range(_TRIES))
    return growing.model() if growing.steps else None


def assembled(
    steps: Sequence[Step], inputs: Mapping[str, Array], known: Mapping[str, Answer], opset: int, *, every: bool = False
) -> RandomModel:
    """The model of some steps. With `every` all values are results, to find the node that is to blame."""
    nodes = [node for step in steps for node in step.nodes]
    asked = {name for node in nodes for name in reads(node)}
    made = [name for step in steps for name in step.results]
    wanted = [name for name in made if every or name not in asked]
    weights = {name: array for step in steps for name, array in step.weights.items()}
    outputs = [tensor_info(name, known[name].array, open_shape=known[name].open) for name in wanted]
    model = model_of(nodes, {n: a for n, a in inputs.items() if n in asked}, weights, outputs, opset)
    sample = {value.name: inputs[value.name] for value in model.graph.input}
    return RandomModel(model, sample, steps, {name: known[name] for name in made})
