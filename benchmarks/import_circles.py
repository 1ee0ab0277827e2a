"""Import circles of the package, imports for type checking counted: python -m benchmarks.import_circles"""

from __future__ import annotations

import sys

import grimp
import networkx as nx


def import_circles(package: str = "tvmpipe") -> list[list[str]]:
    """The modules of each circle: from every one of them a chain of imports leads to every other one."""
    graph = grimp.build_graph(package, cache_dir=None)
    imports = nx.DiGraph()
    for module in graph.modules:
        imports.add_edges_from((module, other) for other in graph.find_modules_directly_imported_by(module))
    return sorted(sorted(circle) for circle in nx.strongly_connected_components(imports) if len(circle) > 1)


def main() -> None:
    found = import_circles()
    for circle in found:
        print(" ".join(circle))
    print(len(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
