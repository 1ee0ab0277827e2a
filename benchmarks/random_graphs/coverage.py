"""Which operators are supported, which graphs had, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx.defs

import benchmarks.random_graphs.operators  # noqa: F401  # registers the makers

NOT_TRIED: Mapping[str, str] = {
    "ImageDecoder": "reads files of images",
    "StringConcat": "strings",
    "StringNormalizer": "strings",
    "StringSplit": "strings",
    "RegexFullMatch": "strings",
    "TfIdfVectorizer": "a function of documents, left to ONNX Runtime",
}
"""Operators of the standard that no graph is made of -> why."""


def supported() -> list[str]:
    """Operators that TVM or a converter takes, or that are expanded or written out, by name or domain and name."""
    from tvm.relax.frontend.onnx import onnx_frontend

    from tvmpipe.passes.frontend.converters import converters

    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    names = known & {*onnx_frontend._get_convert_map()} | known
    return sorted({*names, *(f"{domain}.{name}".lstrip(".") for domain, name in converters())} - NOT_TRIED.keys())


def table(rows: Sequence[Mapping[str, Any]], first: int) -> str:
    """What came of the graphs, for people."""
    operators, left, disputes = _sum(rows, "operators"), _sum(rows, "left"), Counter[str]()
    for row in rows:
        disputes.update(f"{operator}: ours is {whose}" for operator, whose in row["disputes"])
    verdicts = Counter(row["verdict"] for row in rows)
    missing = [name for name in supported() if name not in operators]
    lines = [
        f"{len(rows)} graphs from seed {first}, {sum(operators.values())} nodes of {len(operators)} operators",
        ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())),
        "",
        f"ran in ONNX Runtime: {_listed(left)}",
        "",
        f"never appeared: {', '.join(missing) or 'none'}",
        "",
        "where ONNX Runtime and onnx's reference implementation differ:",
        *(f"  {what}, {count} times" for what, count in sorted(disputes.items())),
        "",
        "nodes of each operator:",
        *(f"  {name:45} {count:5}" for name, count in sorted(operators.items())),
    ]
    return "\n".join(lines) + "\n"


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row[key])
    return total


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
