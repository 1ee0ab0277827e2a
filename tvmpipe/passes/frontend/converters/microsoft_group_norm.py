"""Group norm of `com.microsoft`, as diffusion models have it: channels last, with SiLU behind and a sum before."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter
from tvmpipe.passes.frontend.converters.microsoft_activations import sigmoid_gelu
from tvmpipe.passes.frontend.converters.registry import MICROSOFT, OnnxNode, converts


@converts("GroupNorm", MICROSOFT)
def group_norm(node: OnnxNode) -> Any:
    """Norm of each group of channels of `x`, [N, H, W, C] or [N, C, H, W], and SiLU where `activation` is 1."""
    return _normed(Emitter(node.builder), node, node.input(0))


@converts("SkipGroupNorm", MICROSOFT)
def skip_group_norm(node: OnnxNode) -> Any:
    """(group norm of `x + skip + bias`, the sum); a skip of [N, C] counts for all places."""
    from tvm import relax

    emit, (x, _, _, skip, bias) = Emitter(node.builder), (node.input(place) for place in range(5))
    last = bool(node.attributes.get("channels_last", 1))
    if len(emit.shape(skip)) == 2:
        batch, channels = emit.shape(skip)
        skip = emit.reshape(skip, (batch, 1, 1, channels) if last else (batch, channels, 1, 1))
    total = emit("add", x, skip)
    if bias is not None:
        total = emit("add", total, bias if last else emit.reshape(bias, (-1, 1, 1)))
    return relax.Tuple([_normed(emit, node, total), total])


def _normed(emit: Emitter, node: OnnxNode, x: Any) -> Any:
    dtype, last = str(x.ty.dtype), bool(node.attributes.get("channels_last", 1))
    x, gamma, beta = (emit.cast(tensor, "float32") for tensor in (x, node.input(1), node.input(2)))
    result = emit(
        "nn.group_norm",
        emit.channels_first(x) if last else x,
        gamma,
        beta,
        num_groups=int(node.attributes["groups"]),
        channel_axis=1,
        axes=[2, 3],
        epsilon=float(node.attributes.get("epsilon", 1e-5)),
    )
    if node.attributes["activation"]:
        result = sigmoid_gelu(emit, result, 1.0)
    return emit.cast(emit.channels_last(result) if last else result, dtype)
