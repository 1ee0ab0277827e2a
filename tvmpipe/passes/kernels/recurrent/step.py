"""What the cells are written with: one step of a recurrent layer, for one direction, as blocks of TIR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmpipe.passes.kernels.base import BLOCK, KERNEL_ATTR
from tvmpipe.passes.kernels.recurrent.activations import Activation, activate
from tvmpipe.passes.kernels.recurrent.layer import PRODUCT, Recurrence

Element = Callable[[Any, Any], Any]
"""(row of the batch, hidden unit) -> a number."""


@dataclass(frozen=True)
class Step:
    """A step under construction; its methods add blocks at the place where TVM's builder is.

    Attributes: `given` are the function's tensors by name; `state` and `following` the states before and after the
    step, `[directions, batch, padded units]`, by name; `way` and `time` say which direction, and how many steps of it
    came before.
    """

    layer: Recurrence
    given: dict[str, Any]
    state: dict[Any, Any]
    following: dict[Any, Any]
    way: Any
    time: Any

    def elements(self, name: str, element: Element, into: Any = None) -> Element:
        """Compute all elements of a new tensor, or of the following state `into`; returns what reads them."""
        from tvm.tirx.script import builder as T

        layer = self.layer
        shape = (layer.batch, layer.padded)
        target = _buffer(shape, layer.dtype) if into is None else into
        prefix = [] if into is None else [self.way]
        with T.grid(*shape) as (row, unit), T.sblock(name):
            row_at, unit_at = T.axis.remap("SS", [row, unit])
            T.buffer_store(target, element(row_at, unit_at), [*prefix, row_at, unit_at])
        return lambda row, unit: target[(*prefix, row, unit)]

    def product(self, weight: str, left: Element) -> Callable[[int], Element]:
        """The product of a state with weights, by gate."""
        from tvm import tirx
        from tvm.tirx.script import builder as T

        layer = self.layer
        gates, weights = layer.products[weight], self.given[weight]
        result = _buffer((layer.batch, layer.blocks, gates, BLOCK), layer.dtype)
        scale: Element | None = None
        if layer.quantised:
            left, scale = self._quantised(weight, left)
        extents = (layer.batch, layer.blocks, gates, BLOCK, layer.hidden)
        with T.grid(*extents) as loops, T.sblock(f"{weight}_product"):
            row, block, gate, lane, k = at = T.axis.remap("SSSSR", list(loops))
            T.sblock_attr({KERNEL_ATTR: PRODUCT})
            with T.init():
                T.buffer_store(result, tirx.const(0, layer.dtype), list(at[:-1]))
            number = tirx.Cast(layer.dtype, weights[self.way, block, k, gate, lane])
            T.buffer_store(result, result[row, block, gate, lane] + left(row, k) * number, list(at[:-1]))

        def of_gate(gate: int) -> Element:
            def element(row: Any, unit: Any) -> Any:
                value = result[row, unit // BLOCK, gate, unit % BLOCK]
                if scale is None:
                    return value
                return value * (scale(row, unit) * self.given["weight_scale"][self.way, gate, unit])

            return element

        return of_gate

    def gate(self, number: int, product: Element | None) -> Element:
        """What the inputs, and the state's product if there is one, add up to for a gate."""
        layer = self.layer

        def element(row: Any, unit: Any) -> Any:
            place = self.place(row)
            at = (row, place) if layer.batch_major else (place, row)
            column = (self.way * layer.gates + number) * layer.padded + unit
            value = self.given["input"][(*at, column)]
            return value if product is None else value + product(row, unit)

        return element

    def before(self, name: str) -> Element:
        """The state before the step."""
        return lambda row, unit: self.state[name][self.way, row, unit]

    def weighted(self, name: str, *at: int) -> Element:
        """A vector of weights, one for each hidden unit."""
        from tvm import tirx

        return lambda _, unit: tirx.Cast(self.layer.dtype, self.given[name][(self.way, *at, unit)])

    def activated(self, name: str, which: int, value: Element, *, clipped: bool = True) -> Element:
        """The cell's activation `which` of each value; what goes into a gate is clipped before, if the layer clips."""
        from tvm import tirx

        bound = self.layer.clip if clipped else None

        def limited(row: Any, unit: Any) -> Any:
            if bound is None:
                return value(row, unit)
            low, high = (tirx.const(sign * bound, self.layer.dtype) for sign in (-1, 1))
            return tirx.max(tirx.min(value(row, unit), high), low)

        # An activation writes its argument several times, so it has a place of its own first.
        summed = self.elements(f"{name}_sum", limited)
        return self.elements(name, lambda row, unit: self._activation(which, summed(row, unit)))

    def keep(self, name: str, value: Element) -> Element:
        """Makes `value` the state that follows; a sequence that has ended keeps the one it had."""
        from tvm import tirx

        def element(row: Any, unit: Any) -> Any:
            made = value(row, unit)
            if not self.layer.lengths:
                return made
            return tirx.Select(self.goes_on(row), made, self.state[name][self.way, row, unit])

        return self.elements(f"next_{name}", element, self.following[name])

    def goes_on(self, row: Any) -> Any:
        """Whether the sequence of a row has not ended."""
        return self.time < self.given["lengths"][row]

    def place(self, row: Any) -> Any:
        """Which step of inputs and results this one is; backwards, a sequence starts at its own end."""
        from tvm import tirx

        layer = self.layer
        if not any(layer.backward):
            return self.time
        last = layer.steps - 1 - self.time
        if layer.lengths:
            length = tirx.min(self.given["lengths"][row], layer.steps)
            last = tirx.Select(self.time < length, length - 1 - self.time, self.time)
        return last if all(layer.backward) else tirx.Select(self.way == int(layer.backward[1]), last, self.time)

    def _activation(self, which: int, value: Any) -> Any:
        """Directions may differ in their activations."""
        from tvm import tirx

        choices: list[Activation] = [activations[which] for activations in self.layer.activations]
        first = activate(choices[0], value)
        if all(choice == choices[0] for choice in choices):
            return first
        return tirx.Select(self.way == 0, first, activate(choices[1], value))

    def _quantised(self, weight: str, left: Element) -> tuple[Element, Element]:
        """What is left of `left` in 8 bits, as whole numbers without their zero point, and the scale of a step of them.

        As ONNX's DynamicQuantizeLinear, of the whole batch: the range holds 0 and has 255 steps.
        """
        from tvm import tirx
        from tvm.tirx.script import builder as T

        layer = self.layer
        number = tirx.const
        kind = layer.dtype

        def live(row: Any, unit: Any) -> Any:
            """Sequences that ended before the last step do not widen the range, nor do units that only fill a block."""
            alive = unit < layer.hidden
            if layer.lengths:
                alive = tirx.all(alive, self.time <= self.given["lengths"][row])
            return tirx.Select(alive, left(row, unit), number(0, kind))

        ends = {}
        for name, choose in (("lowest", tirx.min), ("highest", tirx.max)):
            lanes = _buffer((BLOCK,), kind)
            with T.grid(BLOCK, layer.batch, layer.blocks) as (lane, row, block), T.sblock(f"{weight}_{name}_lanes"):
                lane_at, row_at, block_at = T.axis.remap("SRR", [lane, row, block])
                with T.init():
                    T.buffer_store(lanes, number(0, kind), [lane_at])
                T.buffer_store(lanes, choose(lanes[lane_at], live(row_at, block_at * BLOCK + lane_at)), [lane_at])
            end = _buffer((1,), kind)
            with T.grid(1, BLOCK) as (one, lane), T.sblock(f"{weight}_{name}"):
                one_at, lane_at = T.axis.remap("SR", [one, lane])
                with T.init():
                    T.buffer_store(end, number(0, kind), [one_at])
                T.buffer_store(end, choose(end[one_at], lanes[lane_at]), [one_at])
            ends[name] = end
        scale, zero = (_buffer((1,), kind) for _ in range(2))
        with T.grid(1) as one, T.sblock(f"{weight}_scale"):
            one_at = T.axis.spatial(1, one)
            width = ends["highest"][one_at] - ends["lowest"][one_at]
            whole = tirx.Select(width == number(0, kind), number(1, kind), width / number(255, kind))
            T.buffer_store(scale, whole, [one_at])
        with T.grid(1) as one, T.sblock(f"{weight}_zero"):
            one_at = T.axis.spatial(1, one)
            T.buffer_store(zero, tirx.nearbyint(-ends["lowest"][one_at] / scale[one_at]), [one_at])

        def rounded(row: Any, unit: Any) -> Any:
            steps = tirx.nearbyint(left(row, unit) / scale[0])
            return tirx.max(tirx.min(steps, number(255, kind) - zero[0]), -zero[0])

        return self.elements(f"{weight}_quantised", rounded), lambda row, unit: scale[0]


def _buffer(shape: tuple[int, ...], dtype: str) -> Any:
    """A buffer of the step. Not in the scope of the product's register tile, whose memory would be shared with it."""
    from tvm.tirx.script import builder as T

    return T.sblock_alloc_buffer(shape, dtype, scope="local")
