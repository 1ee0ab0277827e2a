"""Small decoders with caches, written as exporters write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Decoder:
    """Attention over a cache, between an embedding and logits; the same seeded weights for every way to write it.

    Attributes: `groups` heads of keys and values, of `heads` in all; `told` inputs that say how far the sequence is
    ("attention_mask", "position_ids"), without which the model computes that from the extent of the past; `causal`
    whether it masks what is to come (else it must be run one element at a time); `window` how many keys a query sees, 0
    for all; `flaw` makes something of the cache that no mask hides ("sum"), or keeps it by other means ("slice").
    `layers` have weights and a cache of their own each.
    """

    groups: int = 2
    heads: int = 4
    depth: int = 8
    told: tuple[str, ...] = ("attention_mask", "position_ids")
    causal: bool = True
    window: int = 0
    flaw: str = ""
    vocabulary: int = 50
    longest: int = 64
    layers: int = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list, compare=False)
    constants: dict[str, Any] = field(default_factory=dict, compare=False)

    def model(self) -> onnx.ModelProto:
        """Inputs `input_ids` [1, S], what it is told, and the past; outputs `logits` and the present."""
        width = self.heads * self.depth
        random = np.random.default_rng(0)

        def weight(name: str, *shape: int) -> str:
            return self.constant((random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32), name)

        places = self.places()
        hidden = self.node("Gather", [weight("embedding", self.vocabulary, width), "input_ids"])
        hidden = self.node("Add", [hidden, self.node("Gather", [weight("position", self.longest, width), places])])
        mask = self.mask()
        for layer in range(self.layers):
            hidden = self.layer(hidden, layer, mask, weight)
        self.node("MatMul", [hidden, weight("unembedding", width, self.vocabulary)], "logits")
        cache: list[Any] = [1, self.groups, "past_length", self.depth]
        shapes: dict[str, list[Any]] = {
            "input_ids": [1, "step"],
            "attention_mask": [1, "total"],
            "position_ids": [1, "step"],
        }
        integers = [helper.make_tensor_value_info(n, TensorProto.INT64, shapes[n]) for n in ("input_ids", *self.told)]
        parts = [f"{layer}.{part}" for layer in range(self.layers) for part in ("key", "value")]
        pasts = [helper.make_tensor_value_info(f"past_key_values.{n}", TensorProto.FLOAT, cache) for n in parts]
        cache = [1, self.groups, "total", self.depth]
        presents = [helper.make_tensor_value_info(f"present.{n}", TensorProto.FLOAT, cache) for n in parts]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "step", self.vocabulary])
        weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "decoder", [*integers, *pasts], [logits, *presents], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def layer(self, hidden: str, layer: int, mask: str, weight: Callable[..., str]) -> str:
        """Attention with a cache, added to what it reads."""
        width, inner = self.heads * self.depth, self.groups * self.depth
        own = f".{layer}" if layer else ""
        query = self.split(self.node("MatMul", [hidden, weight(f"wq{own}", width, width)]), self.heads)
        key = self.split(self.node("MatMul", [hidden, weight(f"wk{own}", width, inner)]), self.groups)
        value = self.split(self.node("MatMul", [hidden, weight(f"wv{own}", width, inner)]), self.groups)
        keys, values = self.grown(f"{layer}.key", key), self.grown(f"{layer}.value", value)
        repeated = [self.repeated(tensor) for tensor in (keys, values)]
        transposed = self.node("Transpose", [repeated[0]], perm=[0, 1, 3, 2])
        scores = self.node("MatMul", [query, transposed])
        scores = self.node("Mul", [scores, self.constant(np.float32(self.depth**-0.5))])
        scores = self.node("Add", [scores, mask]) if mask else scores
        output = self.node("MatMul", [self.node("Softmax", [scores], axis=-1), repeated[1]])
        output = self.node("Transpose", [output], perm=[0, 2, 1, 3])
        output = self.node("Reshape", [output, self.constant(np.array([0, 0, width]))])
        hidden = self.node("Add", [hidden, self.node("MatMul", [output, weight(f"wo{own}", width, width)])])
        if self.flaw == "sum":
            total = self.node("ReduceSum", [values, self.constant(np.array([1, 2, 3]))], keepdims=0)
            hidden = self.node("Add", [hidden, self.node("Reshape", [total, self.constant(np.array([1, 1, 1]))])])
        return hidden

    def node(self, operator: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        """Add a node; the name of its result."""
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], f"n{len(self.nodes)}", **attributes))
        return name

    def constant(self, array: Any, name: str = "") -> str:
        """Add a constant."""
        name = name or f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def extent(self, name: str, axis: int) -> str:
        """One extent of a value, as a scalar."""
        return self.node("Gather", [self.node("Shape", [name]), self.constant(np.int64(axis))], axis=0)

    def places(self) -> str:
        """Positions of the step's elements, [1, S]."""
        if "position_ids" in self.told:
            return "position_ids"
        past, step = self.extent("past_key_values.0.key", 2), self.extent("input_ids", 1)
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        counted = self.node("Add", [self.node("Range", [zero, step, one]), past])
        return self.node("Unsqueeze", [counted, self.constant(np.array([0]))])

    def split(self, tensor: str, heads: int) -> str:
        """[1, heads, S, depth]."""
        split = self.node("Reshape", [tensor, self.constant(np.array([0, 0, heads, self.depth]))])
        return self.node("Transpose", [split], perm=[0, 2, 1, 3])

    def grown(self, part: str, new: str) -> str:
        """The past and what is new."""
        name = f"present.{part}"
        if self.flaw == "slice" and part.endswith("value"):
            whole = self.node("Concat", [f"past_key_values.{part}", new], axis=2)
            return self.node("Mul", [whole, self.constant(np.float32(0.5))], name)
        return self.node("Concat", [f"past_key_values.{part}", new], name, axis=2)

    def repeated(self, tensor: str) -> str:
        """[1, heads, T, depth] of [1, groups, T, depth], as transformers' `repeat_kv` does it."""
        each = self.heads // self.groups
        total = self.node("Unsqueeze", [self.extent(tensor, 2), self.constant(np.array([0]))])
        five = self.node("Unsqueeze", [tensor, self.constant(np.array([2]))])
        head = self.constant(np.array([1, self.groups, each]))
        depth = self.constant(np.array([self.depth]))
        wide = self.node("Expand", [five, self.node("Concat", [head, total, depth], axis=0)])
        one = self.constant(np.array([1, self.heads]))
        return self.node("Reshape", [wide, self.node("Concat", [one, total, depth], axis=0)])

    def mask(self) -> str:
        """0 where a query sees a key and -inf elsewhere, [1, 1, S, T]; "" for none."""
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        low, high = self.constant(np.float32(-np.inf)), self.constant(np.float32(0))
        seen = ""
        if self.causal:
            past, step = self.extent("past_key_values.0.key", 2), self.extent("input_ids", 1)
            total = self.node("Add", [past, step])
            keys = self.node("Range", [zero, total, one])
            queries = self.node("Unsqueeze", [self.node("Range", [past, total, one]), self.constant(np.array([1]))])
            seen = self.node("LessOrEqual", [keys, queries])
            if self.window:
                first = self.node("Sub", [queries, self.constant(np.int64(self.window))])
                seen = self.node("And", [seen, self.node("Greater", [keys, first])])
        if "attention_mask" in self.told:
            there = self.node("Cast", ["attention_mask"], to=TensorProto.BOOL)
            there = self.node("Unsqueeze", [there, self.constant(np.array([1, 2]))])
            seen = self.node("And", [seen, there]) if seen else there
        return self.node("Where", [seen, high, low]) if seen else ""
