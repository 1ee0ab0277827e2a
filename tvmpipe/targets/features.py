"""What a cost model sees of a primitive: numbers that are the same on every host, nothing measured in them.

They follow from the primitive's `Work` and the target's description alone, so measurements keep the work and not the
features, and a new `VERSION` of the features needs no new measurements. Sizes are base-2 logarithms.

=====================  ===================================================================================
flops, arithmetic      useful operations; operations of all blocks, padding and transforms included
padding                log2 of arithmetic over flops (below 0 where Winograd saves operations)
input, weight, output  bytes of tensors
inner                  bytes that blocks write on top of the results: what a cache must hold in between
intensity              operations per byte touched
bound                  log2 of compute time over memory time at the target's nominal rates
roofline               log2 seconds of the larger of the two: what the model's target is relative to
special, operators     calls of exp and the like; how many operators are fused
spatial0..4            extents of the kernel's result, innermost first
reduction0..3          extents of its sum, innermost first; `depth` all of them together
tile_rows, tile_cols   the register tile that the schedule takes, `tile_fill` the share of tiles that is work
per_thread             results per thread
residual, expensive    whether a tensor is added to the result; whether the epilogue has more than simple operators
is_*                   the kernel
=====================  ===================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tvmpipe.targets.cost import CALL_S, Work
from tvmpipe.targets.target import TargetDescription

VERSION = 1

_KERNELS = ("attention", "conv2d", "depthwise", "matmul", "pool", "rows", "winograd")
_SIMPLE = {"add", "relu", "clip", "multiply", "subtract", "maximum", "minimum", *_KERNELS, "winograd_conv2d"}
_MOVES = ("concat", "transpose", "pack", "unpack", "reshape", "strided_slice", "pad", "take")
_BLOCK = 16

NAMES = (
    *("flops", "arithmetic", "padding", "input", "weight", "output", "inner", "intensity", "bound", "roofline"),
    *("special", "operators", "depth", "per_thread", "tile_rows", "tile_cols", "tile_fill", "residual", "expensive"),
    *(f"spatial{place}" for place in range(5)),
    *(f"reduction{place}" for place in range(4)),
    *(f"is_{kernel}" for kernel in _KERNELS),
    "moves",
)

# More of these takes no less time, everything else the same. The roofline is the base that a ratio is learned to, so
# that a ratio may well fall with the size: overheads weigh less. Hence they are used where log time is learned.
MONOTONE = ("flops", "arithmetic", "input", "weight", "output", "roofline")


def features(work: Work, target: TargetDescription, threads: int) -> dict[str, float]:
    """The features of a primitive on `threads` threads of a target, by the names of `NAMES`."""
    compute_s, memory_s = _times(work, target, threads)
    spatial, reduction = work.spatial[::-1], work.reduction[::-1]
    rows, columns, fill = _tile(work, target, threads)
    values: dict[str, float] = {
        "flops": _log(work.flops),
        "arithmetic": _log(work.arithmetic),
        "padding": _log(work.arithmetic + 1) - _log(work.flops + 1),
        "input": _log(work.input_bytes),
        "weight": _log(work.weight_bytes),
        "output": _log(work.output_bytes),
        "inner": _log(max(work.inner_bytes - work.output_bytes, 0)),
        "intensity": _log(work.arithmetic) - _log(work.bytes_touched),
        "bound": math.log2((compute_s + 1e-9) / (memory_s + 1e-9)),
        "roofline": math.log2(base_seconds(work, target, threads)),
        "special": _log(work.special),
        "operators": float(len(work.operators)),
        "depth": _log(math.prod(work.reduction)),
        "per_thread": _log(math.prod(work.spatial) / threads),
        "tile_rows": float(rows),
        "tile_cols": float(columns),
        "tile_fill": fill,
        "residual": float(work.input_bytes > 0 and "add" in work.operators and _adds_tensor(work)),
        "expensive": float(any(name not in _SIMPLE for name in work.operators)),
        "moves": float(any(name.startswith(_MOVES) for name in work.operators)),
    }
    values |= {f"spatial{place}": _log(spatial[place]) if place < len(spatial) else 0.0 for place in range(5)}
    values |= {f"reduction{place}": _log(reduction[place]) if place < len(reduction) else 0.0 for place in range(4)}
    values |= {f"is_{kernel}": float(work.kernel == kernel) for kernel in _KERNELS}
    return {name: values[name] for name in NAMES}


def base_seconds(work: Work, target: TargetDescription, threads: int) -> float:
    """A roofline of the operations that are really done, padding included: what the models learn a ratio to."""
    return max(*_times(work, target, threads)) + CALL_S / 5


def family(work: Work) -> str:
    """Primitives of one family are alike in what keeps them from their roofline."""
    if work.kernel:
        return work.kernel
    return "moves" if any(name.startswith(_MOVES) for name in work.operators) else "other"


def _times(work: Work, target: TargetDescription, threads: int) -> tuple[float, float]:
    operations = max(work.arithmetic, 1.0)
    return operations / target.peak_flops(threads), work.bytes_touched / target.memory_bandwidth_bps


def _adds_tensor(work: Work) -> bool:
    """Whether more is read than the kernel's own input: as many bytes again as there are results."""
    own = work.input_bytes - work.output_bytes
    return own > 0 and work.kernel in {"conv2d", "winograd", "matmul", "depthwise"} and work.operators.count("add") > 1


def _tile(work: Work, target: TargetDescription, threads: int) -> tuple[int, int, float]:
    """Rows and panels of the register tile, and which share of all tiles' results is wanted."""
    from tvmpipe.passes.schedule.conv2d import image_tile
    from tvmpipe.passes.schedule.machine import describe
    from tvmpipe.passes.schedule.matmul import product_tile

    machine = describe(target, threads)
    if work.kernel == "conv2d":
        _, blocks, height, width, _ = work.spatial
        if all(extent == 1 for extent in work.reduction[1:3]):
            height, width = 1, height * width
        rows, columns = image_tile(width, blocks, machine)
    elif work.kernel == "winograd":
        blocks, width = work.spatial[3], work.spatial[5]
        rows, columns = image_tile(width, blocks, machine)
    elif work.kernel == "matmul":
        *_, width, columns_all = work.spatial
        if not work.input_bytes or work.weight_bytes:
            width *= math.prod(work.spatial[:-2])
        blocks = max(columns_all // _BLOCK, 1)
        rows, columns = product_tile(width, blocks, math.prod(work.reduction), machine)
    else:
        return 0, 0, 1.0
    whole = math.ceil(width / rows) * rows * math.ceil(blocks / columns) * columns
    return rows, columns, width * blocks / whole


def _log(value: float) -> float:
    return math.log2(value) if value > 1 else 0.0


def as_row(values: Mapping[str, float]) -> list[float]:
    """Features in the order of `NAMES`."""
    return [values[name] for name in NAMES]
