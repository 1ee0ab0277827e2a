"""ONNX operators and what becomes of them, from what the importer takes and refuses."""

from __future__ import annotations

import re
from pathlib import Path

import onnx.defs


def rows(node_tests: Path) -> list[tuple[str, str, str, str]]:
    """(operator, whether it is compiled and what is not, node tests that are right, node tests that are refused).

    `node_tests` is the table that `benchmarks.onnx_backend` writes. Operators that are deprecated in the newest
    version of the standard are left out.
    """
    from tvm.relax.frontend.onnx import onnx_frontend

    known = {*onnx_frontend._get_convert_map(), "Constant"}
    tests = counts(node_tests)
    latest = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "" and not schema.deprecated}
    return [(name, "yes" if name in known else "no", *tests.get(name, ("", ""))) for name in sorted(latest)]


def counts(path: Path) -> dict[str, tuple[str, str]]:
    """The columns `pass` and `unsupported` of that table, by operator."""
    found = {}
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        if len(cells) >= 3 and cells[0].isidentifier():
            found[cells[0]] = (cells[1], cells[2])
    return found
