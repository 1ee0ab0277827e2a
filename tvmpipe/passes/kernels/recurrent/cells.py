"""The cells: what one step makes of its inputs and of the state before, as the ONNX operators define them."""

from __future__ import annotations

from collections.abc import Callable

from tvmpipe.passes.kernels.recurrent.layer import CellKind
from tvmpipe.passes.kernels.recurrent.step import Element, Step


def _lstm(step: Step) -> None:
    """Gates i, o, f, c in this order; peepholes of i, o, f.

    i = f(X_i + H R_i + P_i C), f likewise, C' = f C + i g(X_c + H R_c), o = f(X_o + H R_o + P_o C'), H' = o h(C').
    """
    from tvm import tirx

    layer = step.layer
    product = step.product("weight", step.before("hidden"))
    cell = step.before("cell")

    def looking(number: int, at: Element) -> Element:
        """A gate that sees a cell state through its peephole."""
        gate = step.gate(number, product(number))
        if not layer.peepholes:
            return gate
        weight = step.weighted("peepholes", number)
        return lambda row, unit: gate(row, unit) + weight(row, unit) * at(row, unit)

    let_in = step.activated("input_gate", 0, looking(0, cell))
    if layer.input_forget:
        one = tirx.const(1, layer.dtype)
        forget: Element = lambda row, unit: one - let_in(row, unit)  # noqa: E731
    else:
        forget = step.activated("forget_gate", 0, looking(2, cell))
    candidate = step.activated("candidate", 1, step.gate(3, product(3)))

    def mixed(row: object, unit: object) -> object:
        return forget(row, unit) * cell(row, unit) + let_in(row, unit) * candidate(row, unit)

    following = step.keep("cell", mixed)
    let_out = step.activated("output_gate", 0, looking(1, following))
    shown = step.activated("shown", 2, following, clipped=False)
    step.keep("hidden", lambda row, unit: let_out(row, unit) * shown(row, unit))


def _gru(step: Step) -> None:
    """Gates z, r, h in this order: H' = (1 - z) g(h) + z H, where r resets H before or behind its product for h."""
    from tvm import tirx

    layer = step.layer
    hidden = step.before("hidden")
    product = step.product("weight", hidden)
    update = step.activated("update_gate", 0, step.gate(0, product(0)))
    reset = step.activated("reset_gate", 0, step.gate(1, product(1)))
    if layer.reset_after:
        bias = step.weighted("recurrent_bias") if layer.recurrent_bias else None

        def after(row: object, unit: object) -> object:
            value = product(2)(row, unit)
            return reset(row, unit) * (value if bias is None else value + bias(row, unit))

        recurrent: Element = after
    else:
        left = step.elements("reset_hidden", lambda row, unit: reset(row, unit) * hidden(row, unit))
        recurrent = step.product("candidate_weight", left)(0)
    candidate = step.activated("candidate", 1, step.gate(2, recurrent))
    one = tirx.const(1, layer.dtype)

    def mixed(row: object, unit: object) -> object:
        kept = update(row, unit)
        return (one - kept) * candidate(row, unit) + kept * hidden(row, unit)

    step.keep("hidden", mixed)


def _rnn(step: Step) -> None:
    """H' = f(X + H R)."""
    product = step.product("weight", step.before("hidden"))
    step.keep("hidden", step.activated("activated", 0, step.gate(0, product(0))))


CELLS: dict[CellKind, Callable[[Step], None]] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
"""Each adds the blocks of one step, which end in the states that follow."""
