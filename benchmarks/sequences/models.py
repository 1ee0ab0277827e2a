"""Write a decoder of Llama's shape with caches and seeded weights, without torch.

    python -m benchmarks.sequences.models small small.onnx [--int4]       (no arguments: the shapes)

The graph is what onnxruntime-genai's builder writes: packed queries, keys and values, GroupQueryAttention with rotary
embeddings, MatMulNBits where weights have 4 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.models import GraphWriter

_MICROSOFT = "com.microsoft"
_BLOCK = 32  # weights of 4 bits that share a scale


@dataclass(frozen=True)
class Shape:
    """Extents of a decoder: `heads` of queries share `groups` of keys and values, of `depth` elements each."""

    layers: int
    hidden: int
    inner: int
    heads: int
    groups: int
    depth: int
    vocabulary: int
    context: int

    @property
    def packed(self) -> int:
        """Elements of queries, keys and values of a token in a layer."""
        return (self.heads + 2 * self.groups) * self.depth

    @property
    def parameters(self) -> int:
        """Weights that a step multiplies with."""
        attention = self.hidden * (self.packed + self.heads * self.depth)
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.hidden * self.vocabulary

    @property
    def cache_bytes(self) -> int:
        """Of one sequence of `context` tokens, float32."""
        return self.layers * 2 * self.groups * self.depth * self.context * 4


SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(4, 64, 128, 4, 2, 16, 300, 512),
    "small": Shape(8, 256, 704, 8, 4, 32, 512, 1024),
    "medium": Shape(16, 1024, 2816, 16, 4, 64, 4096, 512),
    "long": Shape(16, 512, 1408, 8, 8, 64, 4096, 2560),
}


class DecoderWriter(GraphWriter):
    """Adds what decoders are made of; weights have 4 bits with `int4`."""

    def __init__(self, shape: Shape, *, int4: bool, seed: int = 0) -> None:
        super().__init__("decoder", seed)
        self.shape = shape
        self._int4 = int4
        self._last: str | None = None

    def several(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node of the contrib domain with these outputs, "" for those that are not wanted."""
        name = f"/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, domain=_MICROSOFT, **attributes))

    def multiplied(self, x: str, inside: int, outside: int) -> str:
        """x with [inside, outside] weights."""
        if not self._int4:
            return self.op("MatMul", x, self.normal(inside, outside, std=inside**-0.5))
        blocks = inside // _BLOCK
        # From -7 to 7 around the zero that stands for 8, so that products have no bias; their deviation is 4.3.
        low, high = self.random.integers(1, 16, (2, outside, blocks, _BLOCK // 2), dtype=np.uint8)
        packed = self.constant(low | high << 4)
        scales = self.random.uniform(0.8, 1.2, (outside, blocks)).astype(np.float32) * np.float32(inside**-0.5 / 4.3)
        sizes = {"K": inside, "N": outside, "bits": 4, "block_size": _BLOCK, "accuracy_level": 1}
        return self.op("MatMulNBits", x, packed, self.constant(scales), domain=_MICROSOFT, **sizes)

    def norm(self, x: str) -> str:
        """Root mean square normalisation."""
        scale = self.constant(self.random.uniform(0.8, 1.2, self.shape.hidden).astype(np.float32))
        return self.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=1e-6, stash_type=1)

    def told(self) -> tuple[str, str]:
        """What attention is told of lengths: of what is kept, less one, and in all."""
        mask = self.input("attention_mask", [1, "total_sequence_length"], TensorProto.INT64)
        summed = self.op("ReduceSum", mask, self.ints(1), keepdims=0)
        kept = self.op("Cast", self.op("Sub", summed, self.ints(1)), to=TensorProto.INT32)
        total = self.op("Gather", self.op("Shape", mask), self.constant(np.array(1, np.int64)), axis=0)
        return kept, self.op("Cast", total, to=TensorProto.INT32)

    def rotations(self) -> tuple[str, str]:
        """Cosines and sines for each place, [context, depth / 2]."""
        shape = self.shape
        angles = np.outer(np.arange(shape.context), 10000.0 ** (-np.arange(0, shape.depth, 2) / shape.depth))
        return self.constant(np.cos(angles).astype(np.float32)), self.constant(np.sin(angles).astype(np.float32))

    def attend(self, packed: str, layer: int, lengths: tuple[str, str], rotations: tuple[str, str]) -> str:
        """Attention of a layer over its cache."""
        shape = self.shape
        parts = ("key", "value")
        extents: list[int | str] = [1, shape.groups, "past_sequence_length", shape.depth]
        pasts = [self.input(f"past_key_values.{layer}.{part}", extents) for part in parts]
        output = f"attention_{layer}"
        self.several(
            "GroupQueryAttention",
            [packed, "", "", *pasts, *lengths, *rotations],
            [output, *(f"present.{layer}.{part}" for part in parts)],
            num_heads=shape.heads,
            kv_num_heads=shape.groups,
            scale=shape.depth**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )
        return output

    def gated(self, x: str) -> str:
        """The feed-forward part."""
        shape = self.shape
        gate = self.multiplied(x, shape.hidden, shape.inner)
        gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        wide = self.op("Mul", gate, self.multiplied(x, shape.hidden, shape.inner))
        return self.multiplied(wide, shape.inner, shape.hidden)

    def decoder(self, logits: str) -> onnx.ModelProto:
        """The model with these logits."""
        shape = self.shape
        self.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="/logits"))
        extents: list[int | str] = [1, shape.groups, "total_sequence_length", shape.depth]
        names = [f"present.{layer}.{part}" for layer in range(shape.layers) for part in ("key", "value")]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "sequence_length", shape.vocabulary])]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, extents) for name in names]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, outputs, initializer=self.weights)
        domains = [helper.make_opsetid("", 21), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=10)


def llama(shape: Shape, *, int4: bool = False, seed: int = 0) -> onnx.ModelProto:
    """A decoder of Llama's shape (Touvron et al., 2023)."""
    g = DecoderWriter(shape, int4=int4, seed=seed)
    ids = g.input("input_ids", [1, "sequence_length"], TensorProto.INT64)
    lengths, rotations = g.told(), g.rotations()
    x = g.op("Gather", g.normal(shape.vocabulary, shape.hidden, std=1.0), ids)
    for layer in range(shape.layers):
        packed = g.multiplied(g.norm(x), shape.hidden, shape.packed)
        attended = g.attend(packed, layer, lengths, rotations)
        x = g.op("Add", x, g.multiplied(attended, shape.heads * shape.depth, shape.hidden))
        x = g.op("Add", x, g.gated(g.norm(x)))
    return g.decoder(g.multiplied(g.norm(x), shape.hidden, shape.vocabulary))


def attention_alone(shape: Shape, seed: int = 0) -> onnx.ModelProto:
    """The same caches and attention, and as good as nothing else: packed rows come from a table."""
    g = DecoderWriter(shape, int4=False, seed=seed)
    ids = g.input("input_ids", [1, "sequence_length"], TensorProto.INT64)
    lengths, rotations = g.told(), g.rotations()
    packed = g.op("Gather", g.normal(shape.vocabulary, shape.packed, std=1.0), ids)
    x = g.attend(packed, 0, lengths, rotations)
    for layer in range(1, shape.layers):
        x = g.op("Add", x, g.attend(packed, layer, lengths, rotations))
    return g.decoder(g.op("MatMul", x, g.normal(shape.heads * shape.depth, shape.vocabulary, std=1.0)))


@click.command()
@click.argument("name", type=click.Choice(list(SHAPES)), required=False)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--int4", is_flag=True, help="Weights of 4 bits.")
def main(name: str | None, path: Path | None, int4: bool) -> None:
    """Write a decoder of shape NAME to PATH."""
    if name is None or path is None:
        for key, shape in SHAPES.items():
            click.echo(f"{key}: {shape.parameters / 1e6:.1f} million weights")
        return
    onnx.save(llama(SHAPES[name], int4=int4), path)


if __name__ == "__main__":
    main()
