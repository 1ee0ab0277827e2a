"""What a primitive does, read off its TIR function before any target's schedule: the same on every host."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from tvmpipe.passes.graph.primitives import Primitive, PrimitiveGraph
from tvmpipe.passes.kernels import KERNELS
from tvmpipe.passes.kernels.base import INSIDE_ATTR, KERNEL_ATTR
from tvmpipe.passes.kernels.half_weights import is_widening, weight_itemsize
from tvmpipe.passes.kernels.inspect import SPATIAL, annotation, blocks_of
from tvmpipe.targets.cost.model import Work

_SPECIAL = {"tirx.exp", "tirx.exp2", "tirx.erf", "tirx.tanh", "tirx.sigmoid", "tirx.log", "tirx.pow", "tirx.sqrt"}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Call"}


def primitive_key(function: Any) -> str:
    """32 hex digits that are equal for structurally equal unscheduled TIR functions, in any process.

    Shapes, types and constants count; names, and the pattern that fusion has already used, do not.
    """
    from tvm_ffi import structural_hash

    bare = function
    for attribute in ("global_symbol", "op_pattern"):
        if attribute in (function.attrs or {}):
            bare = bare.without_attr(attribute)
    shapes = ",".join(f"{p.dtype}{list(map(int, p.shape))}" for p in function.params)
    return hashlib.sha256(f"{structural_hash(bare, map_free_vars=True):016x};{shapes}".encode()).hexdigest()[:32]


def works_of(graph: PrimitiveGraph, module: Any) -> list[Work]:
    """The work of each primitive of a fused module, in order; equal functions are looked at once.

    Without a module (None) nothing is known of the loops, and no work has a key.
    """
    seen: dict[str, Work] = {}
    works = []
    for primitive in graph.primitives:
        function = function_of(primitive, module)
        if function is None:
            works.append(_work(primitive, graph, None))
            continue
        known = seen.get(primitive.function)
        sizes = (primitive.input_bytes, primitive.weight_bytes)
        # One function may be called with a weight here and an activation there.
        if known is None or (known.input_bytes, known.weight_bytes) != sizes:
            known = seen[primitive.function] = _work(primitive, graph, function)
        works.append(known)
    return works


def function_of(primitive: Primitive, module: Any) -> Any:
    """The TIR function that a primitive calls, or None where it calls something else or there is no module."""
    if module is None:
        return None
    called = primitive.call
    return module[called.args[0]] if getattr(called.op, "name", "") == "relax.call_tir" else None


def _work(primitive: Primitive, graph: PrimitiveGraph, function: Any) -> Work:
    from tvm import relax

    sizes: dict[str, Any] = {
        "flops": primitive.flops,
        "input_bytes": primitive.input_bytes,
        "weight_bytes": primitive.weight_bytes,
        "output_bytes": primitive.output_bytes,
        "operators": primitive.operators,
        "dtype": graph.values[primitive.outputs[0]].spec.dtype if primitive.outputs else "float32",
    }
    if function is None:
        return Work(**sizes)
    return Work(
        **sizes,
        key=primitive_key(function),
        view=bool(relax.analysis.has_reshape_pattern(function)),
        **_loops(function),
    )


def _loops(function: Any) -> dict[str, Any]:
    """Kernel, extents and counts of the blocks of a function; of a kernel in several blocks, its largest's extents."""
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    kernel, largest, itemsize = "", 0, 4
    domain: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
    inner_bytes, special, arithmetic = 0, 0, 0.0
    for block, around in _blocks(schedule, function):
        node = schedule.get(block)
        variables = [variable for one in (*around, block) for variable in schedule.get(one).iter_vars]
        spatial = tuple(int(v.dom.extent) for v in variables if int(v.iter_type) == SPATIAL)
        reduction = tuple(int(v.dom.extent) for v in variables if int(v.iter_type) != SPATIAL)
        size = math.prod(spatial) * math.prod(reduction)
        operations, calls = _operations(node.body)
        arithmetic += size * operations
        special += size * calls
        inner_bytes += 0 if annotation(schedule, block, INSIDE_ATTR) else math.prod(spatial) * 4
        mark = str(annotation(schedule, (*around, block)[0], KERNEL_ATTR))
        known = mark in KERNELS  # other marks are of blocks around a kernel
        if (around and mark == kernel and size > largest) if kernel else (known or size > largest):
            kernel = mark if known else ""
            domain, largest = (spatial, reduction), size
            itemsize = weight_itemsize(schedule, block) if known else 4
    return {
        "kernel": kernel,
        "spatial": domain[0],
        "reduction": domain[1],
        "arithmetic": float(arithmetic),
        "inner_bytes": inner_bytes,
        "special": special,
        "weight_itemsize": itemsize,
    }


def _blocks(schedule: Any, function: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The blocks of a function, and for each block inside a kernel's that kernel's.

    One block that is all of a function has no root above it, as a cumulative sum's.
    """
    name = str(function.body.block.name_hint)
    found: list[tuple[Any, tuple[Any, ...]]] = []
    for block in blocks_of(schedule) if name == "root" else [schedule.get_sblock(name)]:
        inside = schedule.get_child_blocks(block) if annotation(schedule, block, KERNEL_ATTR) in KERNELS else []
        found += [(one, (block,)) for one in inside] or [(block, ())]
    return found


def _operations(body: Any) -> tuple[int, int]:
    """Arithmetic operations on floats in a block's body, and calls of special functions among them."""
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(body, found.append)
    floats = [node for node in found if type(node).__name__ in _ARITHMETIC and str(node.ty).startswith("float")]
    floats = [node for node in floats if not (_is_call(node) and is_widening(node))]
    return len(floats), sum(str(getattr(node.op, "name", "")) in _SPECIAL for node in found if _is_call(node))


def _is_call(node: Any) -> bool:
    return type(node).__name__ == "Call"
