"""Which operators are supported, which graphs had, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx.defs

import benchmarks.random_graphs.operators  # noqa: F401  # registers the makers

_STRINGS = "strings are left to ONNX Runtime"
_LACKS = "ONNX Runtime's CPU provider lacks it, so that nothing says what is right"

NOT_TRIED: Mapping[str, str] = {
    "ImageDecoder": "it reads files of images",
    **dict.fromkeys(("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"), _STRINGS),
    **{
        f"com.microsoft.{name}": _LACKS
        for name in (
            *("BiasAdd", "BiasSoftmax", "BiasSplitGelu", "ComplexMul", "ComplexMulConj", "FusedMatMulActivation"),
            *("GatedAdd", "GemmFastGelu", "GroupNorm", "LayerNormalization", "NhwcConv", "NhwcFusedConv"),
            *("NhwcMaxPool", "SimplifiedLayerNormalization", "SkipGroupNorm"),
        )
    },
}
"""Operators that no graph is made of -> why."""


def supported() -> list[str]:
    """Operators of the standard's newest version, and those of other domains that have a converter here, by name or
    domain and name, without those that are not tried."""
    from tvmpipe.passes.frontend.converters import converters

    names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain and not schema.deprecated}
    others = {f"{domain}.{name}" for domain, name in converters() if domain}
    return sorted((names | others) - NOT_TRIED.keys())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What came of the graphs, for people."""
    operators, left, disputes = _sum(rows, "operators"), _sum(rows, "left"), Counter[str]()
    for row in rows:
        disputes.update(f"{operator}: ours is {whose}" for operator, whose in row["disputes"])
    verdicts = Counter(row["verdict"] for row in rows)
    missing = [name for name in supported() if name not in operators]
    seeds = _ranges(row["seed"] for row in rows)
    lines = [
        f"{len(rows)} graphs of the seeds {seeds}; {sum(operators.values())} nodes of {len(operators)} operators",
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


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers as "0-36, 1000-1024"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{first}-{last}" for first, last in found)


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row[key])
    return total


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
