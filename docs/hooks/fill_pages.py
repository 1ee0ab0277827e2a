"""What `mkdocs build` fills into the pages, so that nobody types a figure or a list that a program knows.

A page asks for it in a comment on a line of its own::

    <!-- results: kernels -->                          benchmarks/results/kernels.txt as it is
    <!-- results: cost_model_amd by cost_model -->     the same, where the script has another name (or `folder.name`)
    <!-- readme -->                                    README.md
    <!-- operators -->                                 ONNX operators and what becomes of them
    <!-- element types -->                             element types that tensors may have
    <!-- targets -->                                   processors that a cluster file may name
    <!-- rewrites -->                                  the rewrites in their order, with the reasons
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.exceptions import PluginError
from onnx_operators import rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
_DIRECTIVE = re.compile(r"^<!-- ([a-z ]+?)(?:: (.+?))? -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs with the text of each page."""
    return _DIRECTIVE.sub(_fill, markdown)


def _fill(match: re.Match[str]) -> str:
    name, argument = match.groups()
    if name == "results":
        return results(argument)
    if name not in _GENERATED:
        raise PluginError(f"{match.group(0)}: allowed: results, {', '.join(_GENERATED)}")
    return _GENERATED[name]()


def results(argument: str) -> str:
    """The file that a benchmark wrote, or, where none is kept, the command that prints it."""
    name, _, script = argument.partition(" by ")
    script = script or name
    place = script.replace(".", "/")
    if not any((ROOT / "benchmarks" / path).is_file() for path in (f"{place}.py", f"{place}/__main__.py")):
        raise PluginError(f"there is no benchmarks/{place}.py")
    command = f"`python -m benchmarks.{script}`"
    path = RESULTS / f"{name}.txt"
    if not path.is_file():
        return f"No results of this one are kept; {command} prints them.\n"
    return f"{command} printed `benchmarks/results/{path.name}`:\n\n```text\n{path.read_text().rstrip()}\n```\n"


def readme() -> str:
    """README.md with links as they are from docs/. Files that are no pages are named without a link."""
    text = (ROOT / "README.md").read_text()
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\((?:benchmarks/[^)]*|[A-Z]+(?:\.md)?)\)", r"\1", text)


def operators() -> str:
    """Each operator of the ONNX standard: whether it is compiled, and what its node tests say."""
    head = "| operator | compiled | node tests: right | refused |\n" + "| --- " * 4 + "|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows(RESULTS / "onnx_backend.txt"))


def element_types() -> str:
    """The element types that tensors of a compiled model may have."""
    from tvmpipe.passes.frontend.unsupported import DTYPES
    from tvmpipe.tensors import CARRIERS

    return ", ".join(f"`{name}`" for name in (*sorted(DTYPES), *CARRIERS)) + "\n"


def targets() -> str:
    """The processors that a cluster file may name, with the figures that estimates start from."""
    from tvmpipe.targets.description.boards import boards

    head = "| target | triple | CPU | vector bits | cores | clock, GHz | memory, GB/s |\n" + "| --- " * 7 + "|\n"
    return head + "".join(
        f"| `{one.name}` | {one.triple} | {one.cpu} | {one.vector_bits} | {one.cores} | {one.clock_hz / 1e9:g} "
        f"| {one.memory_bandwidth_bps / 1e9:g} |\n"
        for one in boards()
    )


def rewrites() -> str:
    """The rewrites between import and primitives, in order."""
    from tvmpipe.passes.rewrite.order import REWRITES

    head = "| rewrite | why it stands there |\n| --- | --- |\n"
    return head + "".join(f"| `{one.name}` | {one.why} |\n" for one in REWRITES)


_GENERATED: dict[str, Callable[[], str]] = {
    "readme": readme,
    "operators": operators,
    "element types": element_types,
    "targets": targets,
    "rewrites": rewrites,
}
