"""What the inner loops of kernels consist of on Arm boards: instructions of a turn, by kind, read off the assembly.

    python -m benchmarks.arm

No board is needed: each primitive is compiled as a stage is, and of its innermost loops the one with most products is
counted. A turn's time is at least that of its products; what else stands there runs beside them as far as the processor
can, and what goes to the stack does not belong there at all. Written to `benchmarks/results/arm.txt`.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from importlib.metadata import version

from rich.table import Table

from benchmarks.results_file import save, text_of
from tests.passes.kernels.cross import (
    ARM_BRANCH,
    Primitive,
    batched_matmul_primitive,
    conv2d_primitive,
    innermost_loops,
    integer_conv2d_primitive,
    integer_matmul_primitive,
    machine_code,
    matmul_primitive,
    on_halves,
    winograd_primitive,
)

TARGETS = ("pi4", "pi5")
PRIMITIVES: dict[str, Primitive] = {
    "product, 197x768 by 768x768": matmul_primitive(197, 768, 768),
    "product, one row": matmul_primitive(1, 768, 768),
    "product, float16 weights": on_halves(matmul_primitive(197, 768, 768), "float16"),
    "product of two inputs": batched_matmul_primitive(12, 197, 64, 208),
    "convolution 3x3, 64 channels": conv2d_primitive(64, 64, 28),
    "convolution 1x1, 64 channels": conv2d_primitive(64, 64, 28, kernel=1),
    "convolution 7x7 of a photograph": conv2d_primitive(3, 64, 112, kernel=7, stride=2),
    "Winograd 4x4, 64 channels": winograd_primitive(64, 64, 28, 4),
    "product of bytes": integer_matmul_primitive(197, 768, 768),
    "convolution 3x3 of bytes": integer_conv2d_primitive(64, 64, 28),
}
# Each instruction is counted for the first kind that it matches.
_KINDS = {
    "to the stack": re.compile(r"\s+\w+\s.*\[(?:sp|x29)\b"),
    "products": re.compile(r"\s+(?:f(?:mla|mls|mul|madd|msub)|[us]dot|usdot|[us]mull2?|[us]mlal2?)\s"),
    "loads": re.compile(r"\s+ld\w+\s"),
    "stores": re.compile(r"\s+st\w+\s"),
}


def kind_of(instruction: str) -> str:
    """One of `_KINDS`, or "others"."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.match(instruction)), "others")


def product_loop(primitive: Primitive, target: str) -> list[str]:
    """Of a primitive's innermost loops the one with most products."""
    loops = innermost_loops(machine_code(primitive, target).inspect_source("asm"), ARM_BRANCH)
    return max(loops, key=lambda loop: sum(kind_of(line) == "products" for line in loop))


def main() -> None:
    """Count, print and keep."""
    table = Table("primitive", "board", box=None)
    for column in ("instructions", *_KINDS, "others", "share of products"):
        table.add_column(column, justify="right")
    for name, primitive in PRIMITIVES.items():
        for target in TARGETS:
            loop = product_loop(primitive, target)
            counts = Counter(map(kind_of, loop))
            columns = [counts[kind] for kind in (*_KINDS, "others")]
            share = f"{counts['products'] / len(loop):.2f}"
            table.add_row(name, target, *map(str, (len(loop), *columns)), share)
    text = text_of(f"A turn of the inner loop; apache-tvm {version('apache-tvm')}, {date.today()}", table)
    print(text, end="")
    save("arm.txt", text)


if __name__ == "__main__":
    main()
