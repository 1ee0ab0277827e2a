"""The names users may rely on, and what a device must be able to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import tvmpipe


def test_public_names() -> None:
    assert sorted(tvmpipe.__all__) == ["Bundle", "build", "connect", "load"]
    assert all(hasattr(tvmpipe, name) for name in tvmpipe.__all__)


def test_a_device_needs_nothing_of_the_compile_side() -> None:
    """`tvmpipe.runtime` and the agent's command line import with the compile packages made unimportable."""
    code = """
import sys
from pathlib import Path
for name in ("onnx", "onnxslim", "xgboost", "pulp", "highspy", "simpy", "networkx", "yaml", "onnxruntime"):
    sys.modules[name] = None
import tvmpipe, tvmpipe.cli, tvmpipe.runtime.device.agent, tvmpipe.runtime.device.host_process
import tvmpipe.runtime.head.pipeline
import tvmpipe.commands.run
loaded = [name for name in sys.modules if name.startswith(("tvmpipe.passes", "tvmpipe.targets"))]
assert not loaded, loaded
import tvmpipe.targets.store.profile_store, tvmpipe.targets.store.stage_times  # which `run --learn` needs on a head
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_data_flows_one_way() -> None:
    """Devices know no compiler, and what code costs is known without making any."""
    package = Path(tvmpipe.__file__).parent
    for folder, beyond in (("runtime", ("passes", "targets")), ("targets", ("passes",))):
        for path in sorted((package / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                wrong = [name for name in names for one in beyond if name.startswith(f"tvmpipe.{one}")]
                assert not wrong, f"{path.relative_to(package)} imports {wrong}"
