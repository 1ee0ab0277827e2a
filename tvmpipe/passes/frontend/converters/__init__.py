"""Converters of our own: what TVM's ONNX importer lacks, computes wrongly, or writes so that no rewrite can read it.

One operator of ONNX, or one domain of others, a file; `FILES` names the files. To add one, see
docs/contributing/operator.md.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping

from tvmpipe.passes.frontend.converters.registry import Converter, Operator, registered

FILES = (
    "batch_normalization",
    "bit_cast",
    "bit_shift",
    "cast",
    "clip",
    "col2_im",
    "conv_integer",
    "conv_transpose",
    "cumulative",
    "deform_conv",
    "dequantize_linear",
    "det",
    "dropout",
    "dynamic_quantize_linear",
    "dynamic_quantize_lstm",
    "elu",
    "equal",
    "eye_like",
    "fourier",
    "gather",
    "gru",
    "hyperbolic",
    "is_inf",
    "lp_normalization",
    "lrn",
    "lstm",
    "matmul_integer",
    "matmul_nbits",
    "max_unpool",
    "microsoft_activations",
    "microsoft_attention",
    "microsoft_convolution",
    "microsoft_group_norm",
    "microsoft_group_query_attention",
    "microsoft_integer_matmul",
    "microsoft_matmul",
    "microsoft_mixture",
    "microsoft_multi_head_attention",
    "microsoft_norms",
    "microsoft_recurrences",
    "microsoft_rotary_embedding",
    "microsoft_tensors",
    "mod",
    "one_hot",
    "pad",
    "pooling",
    "pow",
    "prelu",
    "qlinear_conv",
    "qlinear_elementwise",
    "qlinear_matmul",
    "qlinear_pool",
    "quantize_linear",
    "reduce_log_sum_exp",
    "reduce_mean",
    "resize",
    "reverse_sequence",
    "rnn",
    "roi_align",
    "scatter_elements",
    "shrink",
    "slice",
    "split",
    "tensor_scatter",
    "thresholded_relu",
    "top_k",
    "training",
    "unsqueeze",
    "variadic",
)


@functools.cache
def converters() -> Mapping[Operator, Converter]:
    """The converters of all files, by domain and type of the operator; "" is ONNX's own domain."""
    for name in FILES:
        importlib.import_module(f"{__name__}.{name}")
    return registered()
