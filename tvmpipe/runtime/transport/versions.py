"""Which versions may work together: what a head and its devices say to each other has no version of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

NAMES = ("tvmpipe", "apache-tvm")


def own_versions() -> dict[str, str]:
    """Of this process."""
    return {name: version(name) for name in NAMES}


def difference(theirs: Mapping[str, Any]) -> str | None:
    """How another's versions differ from ours, and what to do; None when they are the same. One sentence."""
    ours = own_versions()
    if all(theirs.get(name) == ours[name] for name in NAMES):
        return None
    there = " with ".join(f"{name} {theirs.get(name, 'of unknown version')}" for name in NAMES)
    here = " with ".join(f"{name} {ours[name]}" for name in NAMES)
    wanted = " ".join(f"{name}=={ours[name]}" for name in NAMES)
    return f"it has {there}, this machine {here}: `pip install {wanted}` there, and start its agent again"


def work_together(theirs: Mapping[str, Any]) -> bool:
    """Whether another of these versions can be used: the same tvmpipe, and TVM but for its last number."""
    ours = own_versions()
    series = [str(each.get("apache-tvm", "")).split(".")[:2] for each in (theirs, ours)]
    return theirs.get("tvmpipe") == ours["tvmpipe"] and series[0] == series[1]
