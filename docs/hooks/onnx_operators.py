"""ONNX operators and what becomes of them, from what the importer takes and refuses."""

from __future__ import annotations

import re
from pathlib import Path

import onnx.defs


def rows(node_tests: Path) -> list[tuple[str, str, str, str]]:
    """(operator, whether it is compiled, node tests that are right, node tests that are refused).

    `node_tests` is the table that `benchmarks.onnx_backend` writes. Operators that are deprecated in the newest
    version of the standard are left out; those of other domains have a converter here or are refused.
    """
    from tvmpipe.passes.frontend.converters import converters

    own = converters()
    tests = counts(node_tests)
    latest = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "" and not schema.deprecated}
    standard = [(name, compiled(name), *tests.get(name, ("", ""))) for name in sorted(latest)]
    return standard + [(f"{domain}.{name}", "yes", "", "") for domain, name in sorted(own) if domain]


def compiled(name: str) -> str:
    """Whether an operator of the standard is compiled, and how."""
    from tvm.relax.frontend.onnx import onnx_frontend

    from tvmpipe.passes.frontend.converters import converters
    from tvmpipe.passes.frontend.folding.expand_functions import is_function

    if name in ("If", "Loop", "Scan"):
        return "where it can be written out (see above)"
    if ("", name) not in converters() and name not in {*onnx_frontend._get_convert_map(), "Constant"}:
        return "as what it stands for" if is_function(name) else "by ONNX Runtime"
    return "yes"


def counts(path: Path) -> dict[str, tuple[str, str]]:
    """Tests that are right, in whichever way, and those refused, by operator."""
    found: dict[str, tuple[str, str]] = {}
    head: list[str] = []
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        if cells[:1] == ["operator"]:
            head = cells
        elif cells and cells[0].isidentifier():
            of = dict(zip(head, (int(cell) if cell.isdecimal() else 0 for cell in cells), strict=True))
            right, refused = sum(of.get(way, 0) for way in ("pass", "constants", "fallback")), of["unsupported"]
            found[cells[0]] = str(right or ""), str(refused or "")
    return found
