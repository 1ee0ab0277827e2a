"""The optimisers of ONNX's training domain: one step for each tensor that is trained."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.converters.registry import OnnxNode, converts

_DOMAIN = "ai.onnx.preview.training"


@converts("Adagrad", _DOMAIN)
def adagrad(node: OnnxNode) -> Any:
    """New tensors, then their accumulated squares of gradients."""
    from tvm import relax

    rate, step = node.input(0), node.input(1)
    decay, epsilon = _numbers(node, decay_factor=0.0, epsilon=1e-6)
    later = relax.op.add(relax.op.multiply(_step(node, step), decay), node.const(1))
    rate = node.emit(relax.op.divide(rate, later))
    tensors, squares = [], []
    for x, gradient, old in _groups(node, 3):
        gradient = _regularised(node, x, gradient)
        square = node.emit(relax.op.add(old, relax.op.multiply(gradient, gradient)))
        spread = relax.op.add(relax.op.sqrt(square), epsilon)
        move = relax.op.divide(relax.op.multiply(rate, gradient), spread)
        tensors.append(node.emit(relax.op.subtract(x, move)))
        squares.append(square)
    return relax.Tuple([*tensors, *squares])


@converts("Adam", _DOMAIN)
def adam(node: OnnxNode) -> Any:
    """New tensors, then their averaged gradients, then the averaged squares of these."""
    from tvm import relax

    alpha, beta = (float(node.attributes.get(name, default)) for name, default in (("alpha", 0.9), ("beta", 0.999)))
    post, epsilon = _numbers(node, norm_coefficient_post=0.0, epsilon=1e-6)
    step, one = _step(node, node.input(1)), node.const(1)
    factor = relax.op.sqrt(relax.op.subtract(one, relax.op.power(node.const(beta), step)))
    factor = relax.op.divide(factor, relax.op.subtract(one, relax.op.power(node.const(alpha), step)))
    rate = node.emit(relax.op.multiply(node.input(0), _after_first(node, factor, one)))
    results: list[list[Any]] = [[], [], []]
    for x, gradient, average, square in _groups(node, 4):
        gradient = _regularised(node, x, gradient)
        average = _mixed(node, average, gradient, alpha)
        square = _mixed(node, square, node.emit(relax.op.multiply(gradient, gradient)), beta)
        spread = relax.op.add(relax.op.sqrt(square), epsilon)
        move = relax.op.divide(relax.op.multiply(rate, average), spread)
        moved = relax.op.multiply(relax.op.subtract(x, move), relax.op.subtract(one, post))
        for made, value in zip(results, (node.emit(moved), average, square), strict=True):
            made.append(value)
    return relax.Tuple([value for made in results for value in made])


@converts("Momentum", _DOMAIN)
def momentum(node: OnnxNode) -> Any:
    """New tensors, then their momenta."""
    from tvm import relax

    alpha, beta = _numbers(node, alpha=0.9, beta=1.0)
    share = node.emit(_after_first(node, beta, node.const(1)))
    tensors, momenta = [], []
    for x, gradient, old in _groups(node, 3):
        gradient = _regularised(node, x, gradient)
        new = node.emit(relax.op.add(relax.op.multiply(alpha, old), relax.op.multiply(share, gradient)))
        move = new
        if node.attributes.get("mode", b"standard") == b"nesterov":
            move = relax.op.add(gradient, relax.op.multiply(alpha, new))
        tensors.append(node.emit(relax.op.subtract(x, relax.op.multiply(node.input(0), move))))
        momenta.append(new)
    return relax.Tuple([*tensors, *momenta])


def _groups(node: OnnxNode, kinds: int) -> list[tuple[Any, ...]]:
    """(tensor, gradient, what is kept of it) for each tensor that is trained."""
    rest = [node.input(place) for place in range(2, len(node.inputs))]
    count = len(rest) // kinds
    return [tuple(rest[kind * count + place] for kind in range(kinds)) for place in range(count)]


def _numbers(node: OnnxNode, **defaults: float) -> list[Any]:
    return [node.const(float(node.attributes.get(name, default))) for name, default in defaults.items()]


def _step(node: OnnxNode, count: Any) -> Any:
    from tvm import relax

    return node.emit(relax.op.astype(count, str(node.input(0).ty.dtype)))


def _after_first(node: OnnxNode, later: Any, first: Any) -> Any:
    from tvm import relax

    return relax.op.where(relax.op.greater(node.input(1), relax.const(0, "int64")), later, first)


def _regularised(node: OnnxNode, x: Any, gradient: Any) -> Any:
    from tvm import relax

    (norm,) = _numbers(node, norm_coefficient=0.0)
    return node.emit(relax.op.add(relax.op.multiply(norm, x), gradient))


def _mixed(node: OnnxNode, old: Any, new: Any, share: float) -> Any:
    from tvm import relax

    kept = relax.op.multiply(old, node.const(share))
    return node.emit(relax.op.add(kept, relax.op.multiply(new, node.const(1 - share))))
