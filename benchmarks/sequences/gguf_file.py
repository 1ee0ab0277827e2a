"""The weights of a decoder that `models.py` has written, as a file for llama.cpp. Needs the package gguf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.sequences.models import Shape

KINDS = ("F32", "Q8_0", "Q4_0")


def write_gguf(model: onnx.ModelProto, shape: Shape, path: Path, kind: str) -> None:
    """A float32 decoder of this shape with matrices of type `kind`, one of `KINDS`, by llama.cpp's own quantisation.

    Tokens have no text. Where heads are rotated, llama.cpp's files for Llama have pairs of neighbours, and the model
    halves: rows of queries and keys are put in the other order.
    """
    import gguf  # type: ignore[import-not-found]

    sort = getattr(gguf.GGMLQuantizationType, kind)
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(shape.context)
    file.add_embedding_length(shape.hidden)
    file.add_block_count(shape.layers)
    file.add_feed_forward_length(shape.inner)
    file.add_head_count(shape.heads)
    file.add_head_count_kv(shape.groups)
    file.add_key_length(shape.depth)
    file.add_value_length(shape.depth)
    file.add_rope_dimension_count(shape.depth)
    file.add_rope_freq_base(10000.0)
    file.add_layer_norm_rms_eps(1e-6)
    file.add_vocab_size(shape.vocabulary)
    file.add_tokenizer_model("llama")
    file.add_token_list([f"<{number}>" for number in range(shape.vocabulary)])
    file.add_token_scores([0.0] * shape.vocabulary)
    file.add_token_types([int(gguf.TokenType.NORMAL)] * shape.vocabulary)
    for name, array in _tensors(model, shape).items():
        matrix = array.ndim == 2 and name != "token_embd.weight"
        if matrix and kind != "F32":
            file.add_tensor(name, gguf.quantize(array, sort), raw_dtype=sort)
        else:
            file.add_tensor(name, array)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _tensors(model: onnx.ModelProto, shape: Shape) -> dict[str, NDArray[np.float32]]:
    """The weights by llama.cpp's names, matrices as [out, in]."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = iter(arrays[node.input[1]] for node in model.graph.node if node.op_type == "MatMul")
    norms = iter(arrays[node.input[1]] for node in model.graph.node if node.op_type == "SimplifiedLayerNormalization")
    table = next(node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in arrays)
    found: dict[str, NDArray[np.float32]] = {"token_embd.weight": arrays[table]}
    queries, keys = shape.heads * shape.depth, shape.groups * shape.depth
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        q, k, v = np.split(np.ascontiguousarray(next(products).T), [queries, queries + keys])
        found[f"{block}.attn_q.weight"] = _neighbours(q, shape.heads)
        found[f"{block}.attn_k.weight"] = _neighbours(k, shape.groups)
        found[f"{block}.attn_v.weight"] = v
        for name in ("attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            found[f"{block}.{name}.weight"] = next(products).T
        found[f"{block}.attn_norm.weight"] = next(norms)
        found[f"{block}.ffn_norm.weight"] = next(norms)
    found["output.weight"] = next(products).T
    found["output_norm.weight"] = next(norms)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}


def _neighbours(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows whose first and second halves in each head are rotated together, as pairs of neighbours."""
    depth = rows.shape[0] // heads
    halves = rows.reshape(heads, 2, depth // 2, -1)
    return halves.swapaxes(1, 2).reshape(rows.shape)
