"""Rotary position embeddings of `com.microsoft`; the rotation itself is in passes/frontend/arithmetic/rotation.py."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.arithmetic.rotation import rotated
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("RotaryEmbedding", MICROSOFT)
def rotary_embedding(node: OnnxNode) -> Any:
    """Rotates [B, S, heads * D] or [B, heads, S, D] at positions [B, S], or from one offset on.

    With `rotary_embedding_dim` only so much of each head is rotated, and `num_heads` says how many there are;
    otherwise the caches, half as wide as a head, do. `scale` is ignored, as in ONNX Runtime, and so is
    `is_packed_batching`, which only says what batches mean.
    """
    emit = Emitter(node.builder)
    x, positions, cosine, sine = (node.input(place) for place in range(4))
    shape, interleaved = emit.shape(x), bool(node.attributes.get("interleaved", 0))
    if len(shape) == 4:
        batch, _, length, _ = shape
        heads = emit.transpose(x, (0, 2, 1, 3))
    else:
        batch, length, width = shape
        part, count = (int(node.attributes.get(name, 0)) for name in ("rotary_embedding_dim", "num_heads"))
        depth = width // count if part and count else 2 * emit.shape(cosine)[1]
        heads = emit.reshape(x, (batch, length, width // depth, depth))
    if emit.shape(positions) == (batch, length):
        places = positions
    else:
        places = emit(
            "add", emit.reshape(positions, (1, 1)), emit.counted(length, str(positions.ty.dtype), (1, length))
        )
    cosine, sine = (emit("take", cache, places, axis=0, mode="clip") for cache in (cosine, sine))
    result = rotated(emit, heads, cosine, sine, interleaved)
    return emit.transpose(result, (0, 2, 1, 3)) if len(shape) == 4 else emit.reshape(result, shape)
