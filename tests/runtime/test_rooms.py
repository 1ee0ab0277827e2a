"""Which folder of the runtime may import which, and that no modules import each other in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx

import tvmpipe

PACKAGE = Path(tvmpipe.__file__).parent
ROOT = "tvmpipe.runtime"

DATA = {"spec", "status", "stored_file", "totals"}
"""Modules of `device/` that are data: what heads and devices tell each other."""

HOSTS = {("tvmpipe.runtime.head.stock_server", "tvmpipe.runtime.device.hosting")}
"""A stock RPC server hosts no stages: the head does it for one, as a device would."""


def name_of(path: Path) -> str:
    """A module's name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports() -> networkx.DiGraph:
    """Who imports whom, in functions and for type checkers too."""
    modules = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    graph = networkx.DiGraph()
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in modules else node.module for name in inside]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            graph.add_edges_from((module, name) for name in names if name in modules)
    return graph


GRAPH = imports()


def between(room: str, *others: str) -> set[tuple[str, str]]:
    """Imports from one folder of the runtime to others."""
    rooms = tuple(f"{ROOT}.{other}." for other in others)
    return {(one, two) for one, two in GRAPH.edges if one.startswith(f"{ROOT}.{room}.") and two.startswith(rooms)}


def test_no_modules_import_each_other() -> None:
    circles = [sorted(one) for one in networkx.strongly_connected_components(GRAPH) if len(one) > 1]
    assert [one for one in circles if any(name.startswith(ROOT) for name in one)] == []


def test_the_runtime_knows_neither_compiler_nor_costs() -> None:
    assert any(two.startswith("tvmpipe.manifest") for one, two in GRAPH.edges if one.startswith(ROOT))
    beyond = ("tvmpipe.passes", "tvmpipe.targets", "tvmpipe.profiling", "tvmpipe.commands", "tvmpipe.serve")
    assert [(one, two) for one, two in GRAPH.edges if one.startswith(ROOT) and two.startswith(beyond)] == []


def test_a_device_knows_no_head() -> None:
    assert between("device", "head", "tools") == set()


def test_a_head_knows_of_devices_what_both_say() -> None:
    code = {(one, two) for one, two in between("head", "device") if two.rpartition(".")[2] not in DATA}
    assert code == HOSTS
    assert between("head", "tools") == set()


def test_transport_and_security_know_neither() -> None:
    assert between("transport", "head", "device", "tools") == set()
    assert between("security", "head", "device", "tools", "emulation") == set()


def test_bundles_know_no_runtime() -> None:
    below = ("tvmpipe.bundle", "tvmpipe.manifest", "tvmpipe.archive", "tvmpipe.consistency")
    assert [(one, two) for one, two in GRAPH.edges if one in below and two.startswith(ROOT)] == []
    doors = {"tvmpipe.runtime.head.connect", "tvmpipe.runtime.emulation.inprocess"}
    assert {one for one, two in GRAPH.edges if one.startswith(ROOT) and two == "tvmpipe.bundle"} == doors
