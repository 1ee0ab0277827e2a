"""Single primitives, scheduled and compiled for another machine as `passes.backend.lower` does it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tvmpipe.passes.backend.codegen.half_conversions import convert_by_bits
from tvmpipe.passes.kernels.base import BLOCK
from tvmpipe.passes.kernels.channel_blocks import blocks
from tvmpipe.passes.kernels.conv2d.compute import conv2d
from tvmpipe.passes.kernels.matmul.compute import matmul, matmul_packed
from tvmpipe.passes.kernels.rows.compute import softmax
from tvmpipe.passes.kernels.schedule import schedule_function
from tvmpipe.passes.kernels.window import Window
from tvmpipe.passes.kernels.winograd.compute import winograd_conv2d
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cpu_model import describe_cpu

Primitive = Callable[[], Any]
"""Makes the unscheduled TIR function; its last parameter is the result."""

SYMBOL = "primitive"


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


def softmax_primitive(rows: int, n: int) -> Primitive:
    """Along the last axis of `[rows, n]`."""
    return lambda: _primitive(softmax, (rows, n))


def machine_code(primitive: Primitive, target_name: str, threads: int = 1) -> Any:
    """The runtime module of a primitive for a target, with one function `SYMBOL`."""
    import tvm

    target = find_target(target_name)
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
    return [[line for line in lines[start : stop + 1] if re.match(r"\s+[a-z]", line)] for start, stop in inner]


def _primitive(compute: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
    from tvm import te

    operands = [te.placeholder(shape, "float32", name=f"operand{place}") for place, shape in enumerate(shapes)]
    return te.create_prim_func([*operands, compute(*operands)]).with_attr("tirx.noalias", True)
