"""What a cost model sees of a primitive: numbers that are the same on every host, nothing measured in them.

They follow from the primitive's `Work` and the target's description alone, so measurements keep the work and not the
features, and a new `VERSION` of the features needs no new measurements. Sizes are base-2 logarithms.

=====================  ===================================================================================
flops, arithmetic      useful operations; operations of all blocks, padding and transforms included
padding                log2 of arithmetic over flops (below 0 where Winograd saves operations)
input, weight, output  bytes of tensors
first, cold            bytes of the first operand, which the primitive before has just written; bytes of all else, which
                       cold caches do not hold (`operands`)
inner                  bytes that blocks write on top of the results: what a cache must hold in between
intensity              operations per byte touched
bound                  log2 of compute time over memory time at the target's nominal rates
roofline               log2 seconds of the larger of the two: what the model's target is relative to
special, operators     calls of exp and the like; how many operators are fused
spatial0..4            extents of the kernel's result, innermost first
reduction0..3          extents of its sum, innermost first; `depth` all of them together
tile_rows, tile_cols   the register tile that the schedule takes, `tile_fill` the share of tiles that is work
tiles, cycles          how many tiles there are, and cycles they take at best (`targets.cost.phases`)
transform              operations of Winograd's transforms
second, third, padded  bytes read again from a level 2 cache, from beyond, and bytes of padded copies
chunk                  bytes that are worked on at a time
far                    share of the first operand that a level 2 cache no longer holds
per_thread             results per thread
residual, expensive    whether a tensor is added to the result; whether the epilogue has more than simple operators
is_*                   the kernel, or what kind of move (`family`)
moves                  whether data are laid out anew
=====================  ===================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tvmpipe.targets.cost.kernel_costs import kernel_cost, kernel_names, phases
from tvmpipe.targets.cost.model import CALL_S, Work
from tvmpipe.targets.cost.phases import far_share
from tvmpipe.targets.description.target import TargetDescription

VERSION = 3

_SIMPLE = {"add", "relu", "clip", "multiply", "subtract", "maximum", "minimum", "winograd_conv2d"}  # and kernels
_SCATTERS = ("unpack", "transpose")  # they read or write single numbers far apart
_JOINS = ("concat",)
_PICKS = ("take", "strided_slice")  # they read no more than they write, however large what they read from
_MOVES = (*_SCATTERS, *_JOINS, *_PICKS, "pack", "reshape", "pad")

_SIZES = (
    *("flops", "arithmetic", "padding", "input", "weight", "output", "inner", "intensity", "bound", "roofline"),
    *("first", "cold"),
    *("special", "operators", "depth", "per_thread", "tile_rows", "tile_cols", "tile_fill", "residual", "expensive"),
    *("tiles", "cycles", "transform", "second", "third", "padded", "chunk", "far"),
    *(f"spatial{place}" for place in range(5)),
    *(f"reduction{place}" for place in range(4)),
)
_KINDS = ("is_scatter", "is_join", "moves")

# More of these takes no less time, everything else the same. The roofline is the base that a ratio is learned to, so
# that a ratio may well fall with the size: overheads weigh less. Hence they are used where log time is learned.
MONOTONE = ("flops", "arithmetic", "input", "weight", "output", "roofline")


def feature_names() -> tuple[str, ...]:
    """The features in their order; there is one for each registered kernel."""
    return (*_SIZES, *(f"is_{kernel}" for kernel in kernel_names()), *_KINDS)


def features(work: Work, target: TargetDescription, threads: int) -> dict[str, float]:
    """The features of a primitive on `threads` threads of a target, by `feature_names`, in that order."""
    compute_s, memory_s = _times(work, target, threads)
    spatial, reduction = work.spatial[::-1], work.reduction[::-1]
    followed = phases(work, target, threads)
    first, others = operands(work)
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
        "first": _log(first),
        "cold": _log(others + weights_read(work) + work.output_bytes),
        "special": _log(work.special),
        "operators": float(len(work.operators)),
        "depth": _log(math.prod(work.reduction)),
        "per_thread": _log(math.prod(work.spatial) / threads),
        "tile_rows": float(followed.rows),
        "tile_cols": float(followed.columns),
        "tile_fill": followed.fill,
        "tiles": _log(followed.tiles),
        "cycles": _log(followed.cycles),
        "transform": _log(followed.transform),
        "second": _log(followed.second),
        "third": _log(followed.third),
        "padded": _log(followed.padded),
        "chunk": _log(followed.chunk),
        "far": far_share(first + work.output_bytes + followed.padded),
        "residual": float(work.input_bytes > 0 and "add" in work.operators and _adds_tensor(work)),
        "expensive": float(any(name not in _SIMPLE and name not in kernel_names() for name in work.operators)),
        "is_scatter": float(family(work) == "scatter"),
        "is_join": float(family(work) == "join"),
        "moves": float(_some(work, _MOVES)),
    }
    values |= {f"spatial{place}": _log(spatial[place]) if place < len(spatial) else 0.0 for place in range(5)}
    values |= {f"reduction{place}": _log(reduction[place]) if place < len(reduction) else 0.0 for place in range(4)}
    values |= {f"is_{kernel}": float(work.kernel == kernel) for kernel in kernel_names()}
    return {name: values[name] for name in feature_names()}


def base_seconds(work: Work, target: TargetDescription, threads: int) -> float:
    """A roofline of the operations that are really done, padding included: what the models learn a ratio to."""
    return max(*_times(work, target, threads)) + CALL_S / 5


def family(work: Work) -> str:
    """Primitives of one family are alike in what keeps them from their roofline."""
    if work.kernel:
        return work.kernel
    kinds = {"scatter": _SCATTERS, "join": _JOINS, "moves": _MOVES}
    return next((kind for kind, names in kinds.items() if _some(work, names)), "other")


def operands(work: Work) -> tuple[float, float]:
    """Bytes read of the first operand and of the others, weights aside.

    Sizes of single operands are not kept: a residual is as large as the result, parts that are joined are halves, and
    of attention's three operands each is a third.
    """
    read = float(min(work.input_bytes, work.output_bytes) if _some(work, _PICKS) else work.input_bytes)
    if work.kernel:
        count = kernel_cost(work.kernel).operands
        others = read * (count - 1) / count + (work.output_bytes if _adds_tensor(work) else 0)
    elif _some(work, _JOINS):
        others = read / 2
    else:
        others = max(read - work.output_bytes, 0)
    return read - min(others, read), min(others, read)


def weights_read(work: Work) -> float:
    """Bytes of weights that are read: of a table that is looked up, what is found."""
    return min(work.weight_bytes, work.output_bytes) if _some(work, _PICKS) else work.weight_bytes


def scattered(work: Work) -> float:
    """Numbers that are written one by one, far from each other: channels that are no longer in blocks."""
    return work.output_bytes / 4 if _some(work, ("unpack",)) and work.spatial and work.spatial[-1] > 1 else 0.0


def _some(work: Work, names: tuple[str, ...]) -> bool:
    return any(name.startswith(names) for name in work.operators)


def _times(work: Work, target: TargetDescription, threads: int) -> tuple[float, float]:
    operations = max(work.arithmetic, 1.0)
    touched = 0.0 if work.view else sum(operands(work)) + weights_read(work) + work.output_bytes
    return operations / target.peak_flops(threads), touched / target.memory_bandwidth_bps


def _adds_tensor(work: Work) -> bool:
    """Whether more is read than the kernel's own input: as many bytes again as there are results."""
    own = work.input_bytes - work.output_bytes
    return own > 0 and work.kernel != "" and kernel_cost(work.kernel).biased and work.operators.count("add") > 1


def _log(value: float) -> float:
    return math.log2(value) if value > 1 else 0.0


def as_row(values: Mapping[str, float]) -> list[float]:
    """Features in the order of `feature_names`."""
    return [values[name] for name in feature_names()]
