"""The names users may rely on, and what a device must be able to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tvmpipe
from benchmarks.import_circles import import_circles

PROJECT = Path(tvmpipe.__file__).parents[1]


def test_public_names() -> None:
    assert sorted(tvmpipe.__all__) == ["Bundle", "InferenceSession", "Replanner", "build", "connect", "load"]
    assert all(hasattr(tvmpipe, name) for name in tvmpipe.__all__)


def test_a_device_needs_nothing_of_the_compile_side() -> None:
    """`tvmpipe.runtime` and the agent's command line import with the compile packages made unimportable."""
    code = """
import sys
from pathlib import Path
compile_side = "onnx onnxslim safetensors xgboost pulp highspy ortools simpy networkx scipy yaml onnxruntime ziglang"
compile_side += " tokenizers jinja2 starlette uvicorn prometheus_client zeroconf"
for name in compile_side.split():
    sys.modules[name] = None
import tvmpipe, tvmpipe.cli, tvmpipe.commands.agent
heavy = [name for name in ("tvm", "cryptography") if name in sys.modules]
assert not heavy, heavy  # which only the processes have that an agent starts
import tvmpipe.runtime.device.host_process, tvmpipe.runtime.device.rpc_process, tvmpipe.runtime.device.load_stages
import tvmpipe.runtime.head.pipeline
import tvmpipe.commands.run
loaded = [name for name in sys.modules if name.startswith(("tvmpipe.passes", "tvmpipe.targets"))]
assert not loaded, loaded
import tvmpipe.targets.store.profile_store, tvmpipe.targets.store.stage_times  # which `run --learn` needs on a head
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_option_that_needs_what_is_not_installed_says_so() -> None:
    """Read before the command runs."""
    code = """
import sys
sys.modules["networkx"] = None
from tvmpipe.cli import invoke
sys.exit(invoke(["plan", "model.onnx", "--cluster", "cluster.toml"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "tvmpipe: error: this command needs the package 'networkx'; install tvmpipe[compile]\n" in done.stderr


def test_layers() -> None:
    """The contracts in pyproject.toml, as `lint-imports` checks them."""
    assert (PROJECT / "pyproject.toml").is_file()
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    # In a process of its own: it disables the loggers that there are, which later tests read.
    assert subprocess.run([sys.executable, "-c", code, PROJECT / "pyproject.toml"], check=False).returncode == 0


def test_no_import_circle() -> None:
    assert import_circles() == []


def test_circles_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only type checkers see."""
    (tmp_path / "circular").mkdir()
    for name, text in (
        ("__init__", ""),
        ("a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from circular import b\n"),
        ("b", "from circular import c\n"),
        ("c", "def late():\n    import circular.a\n"),
        ("d", "import circular.c\n"),
    ):
        (tmp_path / "circular" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_circles("circular") == [["circular.a", "circular.b", "circular.c"]]
