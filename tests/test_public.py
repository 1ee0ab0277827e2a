"""The names users may rely on, and what a device must be able to import."""

from __future__ import annotations

import subprocess
import sys

import tvmpipe


def test_public_names() -> None:
    assert sorted(tvmpipe.__all__) == ["Bundle", "build", "load"]
    assert all(hasattr(tvmpipe, name) for name in tvmpipe.__all__)


def test_a_device_needs_nothing_of_the_compile_side() -> None:
    """`tvmpipe.runtime` and the agent's command line import with the compile packages made unimportable."""
    code = """
import sys
for name in ("onnx", "onnxslim", "xgboost", "pulp", "highspy", "simpy", "networkx", "yaml", "onnxruntime"):
    sys.modules[name] = None
import tvmpipe, tvmpipe.cli, tvmpipe.runtime.agent, tvmpipe.runtime.pipeline, tvmpipe.runtime.host_process
import tvmpipe.commands.run
loaded = [name for name in sys.modules if name.startswith(("tvmpipe.passes", "tvmpipe.targets"))]
assert not loaded, loaded
import tvmpipe.targets.profile_store, tvmpipe.targets.stage_times  # which `run --learn` needs on a head
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
