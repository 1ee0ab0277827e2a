"""LSTM, GRU and RNN, with everything that they may be given."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.random_graphs.pool import Pool, Value
from benchmarks.random_graphs.proposal import Proposal, makes, node, without_results

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
_KNOWN = ("Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "HardSigmoid", "Elu", "Softsign", "Softplus")
_NUMBERS = {"Affine": (0.7, 0.1), "LeakyRelu": (0.1, None), "HardSigmoid": (0.3, 0.4), "Elu": (0.8, None)}


@makes("LSTM", "GRU", "RNN")
def recurrent(pool: Pool, operator: str) -> Proposal:
    steps, batch, width, size = pool.integer(1, 6), pool.integer(1, 3), pool.integer(1, 9), pool.one_of(1, 3, 8, 17)
    gates, dtype = _GATES[operator], "float32"
    direction = pool.one_of("forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    x = pool.pick(types=[dtype], rank=(3,)) if pool.flip() else pool.fresh([steps, batch, width], dtype, tame=True)
    if not np.isfinite(x.array).all():
        raise LookupError("what activations make of NaN is open")
    layout = int(operator != "RNN" and pool.flip(0.1))
    steps, batch, width = x.array.shape if not layout else (x.array.shape[i] for i in (1, 0, 2))
    weight, again = (pool.operand([ways, gates * size, k], dtype, scale=0.3) for k in (width, size))
    bias = pool.one_of(None, pool.operand([ways, 2 * gates * size], dtype, scale=0.3))
    lengths: Any = pool.random.integers(1, steps + 1, batch).astype(np.int32)
    attributes: dict[str, Any] = {"hidden_size": size, "direction": direction}
    if layout:
        attributes["layout"] = 1

    def state() -> Any:
        shape = [batch, ways, size] if layout else [ways, batch, size]
        return pool.one_of(None, pool.operand(shape, dtype))

    inputs: list[Any] = [x, weight, again, bias, pool.one_of(None, None, lengths, Value("", lengths)), state()]
    if operator == "LSTM":
        inputs += [state(), pool.one_of(None, pool.operand([ways, 3 * size], dtype, scale=0.3))]
        attributes["input_forget"] = int(pool.flip(0.2))
    if operator == "GRU":
        attributes["linear_before_reset"] = pool.integer(0, 1)
    if pool.flip(0.2):
        attributes["clip"] = pool.number(0.3, 2)
    if pool.flip(0.3):
        chosen = [pool.one_of(*_KNOWN) for _ in range(ways * _ACTIVATIONS[operator])]
        attributes["activations"] = chosen
        numbers = [_NUMBERS.get(name, (None, None)) for name in chosen]
        attributes["activation_alpha"] = [alpha for alpha, _ in numbers if alpha is not None]
        attributes["activation_beta"] = [beta for _, beta in numbers if beta is not None]
        attributes = {name: value for name, value in attributes.items() if value != []}
    return without_results(node(operator, inputs, attributes, outputs=3 if operator == "LSTM" else 2), pool)


@makes("com.microsoft.DynamicQuantizeLSTM")
def quantised(pool: Pool, operator: str) -> Proposal:
    steps, batch, width, size = (pool.integer(1, 4) for _ in range(4))
    direction = pool.one_of("forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    kind = pool.one_of(np.uint8, np.int8)
    weights = [pool.random.integers(0, 60, (ways, k, 4 * size)).astype(kind) for k in (width, size)]
    bias = pool.one_of(None, 0.3 * pool.constant([ways, 8 * size], tame=True))
    scales = [np.full(ways, 0.01, np.float32) for _ in range(2)]
    zeros = [np.full(ways, pool.integer(0, 60), kind) for _ in range(2)]
    states = [pool.one_of(None, pool.constant([ways, batch, size], tame=True)) for _ in range(2)]
    x = pool.fresh([steps, batch, width], np.float32, tame=True)
    inputs = [x, *weights, bias, None, *states, None, scales[0], zeros[0], scales[1], zeros[1]]
    attributes = {"hidden_size": size, "direction": direction}
    return node("DynamicQuantizeLSTM", inputs, attributes, outputs=3, domain="com.microsoft", last=True)
