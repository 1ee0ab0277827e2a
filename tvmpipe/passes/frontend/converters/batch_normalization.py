"""BatchNormalization in training mode: by the batch's own mean and variance, which join the running ones."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts


@converts("BatchNormalization")
def batch_normalization(node: OnnxNode) -> Any:
    """In training mode also the running mean and variance; else TVM's, which rewrites read."""
    from tvm import relax

    if not node.attributes.get("training_mode", 0):
        return node.converted_by_tvm()
    x, scale, bias, mean, variance = (node.input(place) for place in range(5))
    shape = node.shape(0)
    column = (1, shape[1], *[1] * (len(shape) - 2))
    axes = [axis for axis in range(len(shape)) if axis != 1]
    momentum = float(node.attributes.get("momentum", 0.9))
    own_mean = node.emit(relax.op.mean(x, axes, keepdims=True))
    apart = node.emit(relax.op.subtract(x, own_mean))
    own_variance = node.emit(relax.op.mean(relax.op.multiply(apart, apart), axes, keepdims=True))
    spread = relax.op.sqrt(relax.op.add(own_variance, node.const(float(node.attributes.get("epsilon", 1e-5)))))
    normal = node.emit(relax.op.divide(apart, spread))
    scaled = node.emit(relax.op.multiply(normal, relax.op.reshape(scale, column)))
    results = [node.emit(relax.op.add(scaled, relax.op.reshape(bias, column)))]
    for running, own, place in ((mean, own_mean, 3), (variance, own_variance, 4)):
        kept = relax.op.multiply(running, node.const(momentum, place))
        flat = relax.op.astype(relax.op.reshape(own, (shape[1],)), str(running.ty.dtype))
        results.append(node.emit(relax.op.add(kept, relax.op.multiply(flat, node.const(1 - momentum, place)))))
    return relax.Tuple(results)
