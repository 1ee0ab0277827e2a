"""Single primitives, scheduled and compiled for another machine as `passes.backend.lower` does it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tvmpipe.passes.backend.codegen.half_conversions import convert_by_bits
from tvmpipe.passes.kernels.base import BLOCK
from tvmpipe.passes.kernels.channel_blocks import blocks
from tvmpipe.passes.kernels.conv2d.compute import conv2d
from tvmpipe.passes.kernels.integer_conv2d.compute import integer_conv2d
from tvmpipe.passes.kernels.integer_matmul.compute import integer_matmul
from tvmpipe.passes.kernels.matmul.compute import matmul, matmul_packed
from tvmpipe.passes.kernels.rows.compute import softmax
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.passes.kernels.weight_only_matmul.compute import operands_of, weight_only_matmul
from tvmpipe.passes.kernels.weight_only_matmul.weight import PackedWeight
from tvmpipe.passes.kernels.window import Window
from tvmpipe.passes.kernels.winograd.compute import winograd_conv2d
from tvmpipe.passes.rewrite.narrow_weights import reading_halves
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription

Primitive = Callable[[], Any]
"""Makes the unscheduled TIR function; its last parameter is the result."""

SYMBOL = "primitive"

ARM_BRANCH = re.compile(r"\s+(?:b\.\w+|b|cbn?z|tbn?z)\s.*?(\.L\w+)$")
"""A branch in aarch64's assembly, and where it goes."""


def matmul_primitive(m: int, k: int, n: int, *batch: int) -> Primitive:
    """`[*batch, m, k]` times packed columns."""
    return lambda: _primitive(lambda x, w: matmul_packed(x, w, n), (*batch, m, k), (blocks(n), k, BLOCK))


def batched_matmul_primitive(batch: int, m: int, k: int, n: int) -> Primitive:
    """`[batch, m, k]` times `[batch, k, n]`."""
    return lambda: _primitive(matmul, (batch, m, k), (batch, k, n))


def conv2d_primitive(channels: int, outputs: int, size: int, kernel: int = 3, stride: int = 1) -> Primitive:
    """One image of `size` x `size`, in blocks unless its channels are few, padded to keep its size."""
    window = Window((kernel, kernel), (stride, stride), (kernel // 2,) * 4)
    few = channels < BLOCK
    x = (1, channels, size, size) if few else (1, blocks(channels), size, size, BLOCK)
    weight = (blocks(outputs), x[1], kernel, kernel, *(() if few else (BLOCK,)), BLOCK)
    return lambda: _primitive(lambda x, w: conv2d(x, w, window, flops=1), x, weight)


def winograd_primitive(channels: int, outputs: int, size: int, m: int) -> Primitive:
    """A 3x3 convolution of one blocked image."""
    window = Window((3, 3), padding=(1, 1, 1, 1))
    x = (1, blocks(channels), size, size, BLOCK)
    weight = ((m + 2) ** 2, blocks(outputs), blocks(channels), BLOCK, BLOCK)
    return lambda: _primitive(lambda x, w: winograd_conv2d(x, w, window, m, flops=1), x, weight)


def integer_matmul_primitive(
    m: int, k: int, n: int, *, signed: bool = False, narrow: bool = False, zero: int = 0
) -> Primitive:
    """`[m, k]` of bytes times packed columns."""
    panels, quads = blocks(n), -(-k // 4)

    def product(x: Any, w: Any, sums: Any) -> Any:
        return integer_matmul(x, w, sums, n=n, narrow=narrow, zero=zero)

    arrays = ((m, k), (panels, quads, BLOCK), (panels * BLOCK,))
    return lambda: _primitive(product, *arrays, dtypes=("int8" if signed else "uint8", "int32", "int32"))


def integer_conv2d_primitive(
    channels: int, outputs: int, size: int, kernel: int = 3, stride: int = 1, *, zero: int = 0
) -> Primitive:
    """One image of bytes, `size` x `size`, in blocks unless its channels are few, padded to keep its size."""
    window = Window((kernel, kernel), (stride, stride), (kernel // 2,) * 4)
    lanes = 4 if channels <= 4 else BLOCK
    x = (1, -(-channels // lanes), size, size, lanes)
    weight = (blocks(outputs), x[1], kernel, kernel, lanes // 4, BLOCK)

    def convolution(x: Any, w: Any, sums: Any) -> Any:
        return integer_conv2d(x, w, sums, window, zero=zero, narrow=False, flops=1)

    dtypes = ("uint8", "int32", "int32")
    return lambda: _primitive(convolution, x, weight, (blocks(outputs), BLOCK), dtypes=dtypes)


def weight_only_primitive(m: int, k: int, weight: PackedWeight) -> Primitive:
    """`[m, k]` times a packed weight; its other operands are `operands_of` the weight."""
    operands = operands_of(weight, (m, k))

    def product(*tensors: Any) -> Any:
        return weight_only_matmul(*tensors, layout=weight.layout)

    shapes = [(m, k), *(array.shape for array in operands)]
    return lambda: _primitive(product, *shapes, dtypes=["float32", *(array.dtype.name for array in operands)])


def softmax_primitive(rows: int, n: int) -> Primitive:
    """Along the last axis of `[rows, n]`."""
    return lambda: _primitive(softmax, (rows, n))


def on_halves(primitive: Primitive, dtype: str) -> Primitive:
    """A primitive whose second operand, its weight, is of a half type: "float16", or "uint16" for bfloat16."""
    return lambda: reading_halves(primitive(), {1: dtype})


def machine_code(primitive: Primitive, target: str | TargetDescription, threads: int = 1) -> Any:
    """The runtime module of a primitive for a target, with one function `SYMBOL`."""
    import tvm

    target = find_target(target) if isinstance(target, str) else target
    scheduled = schedule_function(primitive(), describe_cpu(target, threads))
    scheduled = convert_by_bits(scheduled, target).with_attr("global_symbol", SYMBOL)
    config = {"s_tir.LoopPartition": {"partition_const_loop": True}}
    tvm_target = target.tvm_target(threads)
    with tvm_target, tvm.transform.PassContext(opt_level=3, config=config):
        return tvm.compile(tvm.IRModule({SYMBOL: scheduled}), tvm_target).mod


def innermost_loops(assembly: str, branch: re.Pattern[str]) -> list[list[str]]:
    """Instructions of the loops that hold no other, from label to the branch back, whose group is the label."""
    lines = [re.sub(r"\s*(//|#).*$", "", line) for line in assembly.splitlines()]
    place = {line[:-1]: number for number, line in enumerate(lines) if line.startswith(".L") and line.endswith(":")}
    spans = []
    for number, line in enumerate(lines):
        back = branch.match(line)
        if back and place.get(back[1], number) < number:
            spans.append((place[back[1]], number))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [[line for line in lines[start : stop + 1] if re.match(r"\s+[a-z{]", line)] for start, stop in inner]


def _primitive(compute: Callable[..., Any], *shapes: tuple[int, ...], dtypes: Sequence[str] = ()) -> Any:
    """The function of `compute`; operands are float32 unless `dtypes` says what they are."""
    from tvm import te

    kinds = dtypes or ["float32"] * len(shapes)
    operands = [
        te.placeholder(shape, kind, name=f"operand{place}")
        for place, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    return te.create_prim_func([*operands, compute(*operands)]).with_attr("tirx.noalias", True)
