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


def grouped_query_decoder(
    layers: int = 2, heads: int = 4, groups: int = 2, depth: int = 16, vocabulary: int = 50, longest: int = 64
) -> onnx.ModelProto:
    """As onnxruntime-genai's builder writes decoders: queries, keys and values in one, rotated by GroupQueryAttention.

    The size of a head is an open dimension of its caches.
    """
    random = np.random.default_rng(5)
    width, inner = heads * depth, (heads + 2 * groups) * depth
    weights: dict[str, Any] = {"embedding": random.standard_normal((vocabulary, width))}
    angles = np.arange(longest)[:, None] / 100.0 ** (np.arange(depth // 2) / (depth // 2))
    weights |= {"cos": np.cos(angles), "sin": np.sin(angles)}
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["h"], "embed"),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["filled"], "filled", keepdims=1),
        helper.make_node("Sub", ["filled", "one"], ["last"], "last"),
        helper.make_node("Cast", ["last"], ["seqlens_k"], "lengths", to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "one"], ["extents"], "extent", axis=0),
        helper.make_node("Squeeze", ["extents"], ["extent"], "whole"),
        helper.make_node("Cast", ["extent"], ["total"], "total", to=TensorProto.INT32),
    ]
    hidden = "h"
    for layer in range(layers):
        weights[f"qkv{layer}"] = random.standard_normal((width, inner)) / width**0.5
        weights[f"out{layer}"] = random.standard_normal((width, width)) / width**0.5
        nodes += [
            helper.make_node("MatMul", [hidden, f"qkv{layer}"], [f"p{layer}"], f"qkv_{layer}"),
            helper.make_node(
                "GroupQueryAttention",
                [
                    *(f"p{layer}", "", "", f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"),
                    *("seqlens_k", "total", "cos", "sin"),
                ],
                [f"a{layer}", f"present.{layer}.key", f"present.{layer}.value"],
                f"attention_{layer}",
                domain="com.microsoft",
                num_heads=heads,
                kv_num_heads=groups,
                do_rotary=1,
            ),
            helper.make_node("MatMul", [f"a{layer}", f"out{layer}"], [f"o{layer}"], f"out_{layer}"),
            helper.make_node("Add", [hidden, f"o{layer}"], [f"h{layer}"], f"add_{layer}"),
        ]
        hidden = f"h{layer}"
    weights["unembedding"] = random.standard_normal((width, vocabulary)) / width**0.5
    nodes.append(helper.make_node("MatMul", [hidden, "unembedding"], ["logits"], "unembed"))
    parts = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]

    def value(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [
        value("input_ids", TensorProto.INT64, ["batch", "step"]),
        value("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *(value(f"past_key_values.{n}", TensorProto.FLOAT, ["batch", groups, "past", "head_size"]) for n in parts),
    ]
    outputs = [
        value("logits", TensorProto.FLOAT, ["batch", "step", vocabulary]),
        *(value(f"present.{n}", TensorProto.FLOAT, ["batch", groups, "total", "head_size"]) for n in parts),
    ]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    constants += [numpy_helper.from_array(np.array([1]), name) for name in ("axis", "one")]
    graph = helper.make_graph(nodes, "grouped", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
