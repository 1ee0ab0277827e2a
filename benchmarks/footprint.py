"""What a device needs: memory of an agent's processes, and disk of its installation.

    python -m benchmarks.footprint

makes a new virtual environment, installs this project there as a device does, starts an agent in it (with a cluster
key, which costs an agent most), and runs a pipeline on it from here: before, meanwhile, and afterwards it looks at the
agent's processes. Python tells which files they read, so that the table of packages says what was never read. At last
it deletes `UNUSED` and does all of that again, which must still work. Written to `benchmarks/results/footprint.txt`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import date
from importlib.metadata import distributions, version
from pathlib import Path

import numpy as np
import psutil
from rich.table import Table

import tvmpipe
from benchmarks.results_file import save, text_of
from tests.models import chain
from tests.models import save as save_model
from tests.runtime.resident import Resident, resident, together
from tvmpipe.bundle import Bundle
from tvmpipe.process import die_with_parent
from tvmpipe.runtime.emulation.local_cluster import local_cluster
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.tracker import wait_for_keys

ROOT = Path(__file__).parents[1]
UNUSED = ("tvm/lib/libtvm_compiler.so", "tvm/3rdparty")
"""What no device needs of what is installed, in site-packages."""

_LAYERS, _WIDTH = 8, 1024  # of the model, of 32 MiB of weights
_CLUSTER = '[[device]]\nname = "device"\nthreads = 1\n'
_NAMES = {"rpc_process": "RPC server", "host_process": "stage host"}
_SHOWN = 12  # packages
_NOTE_READING = """
import os, sys
_fd = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _note(event, arguments):
    if event in ("open", "import", "ctypes.dlopen"):
        path = arguments[1] if event == "import" else arguments[0]
        if isinstance(path, str) and path.startswith({site!r}):
            os.write(_fd, (path + chr(10)).encode())
sys.addaudithook(_note)
"""


def main() -> None:
    """Measure, print and keep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _bundle(folder)
        site = _installed(folder / "venv")
        sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
        memory = _memory(folder, bundle, site)
        read = {Path(line) for line in (folder / "read").read_text().splitlines()}
        mapped = {Path(name) for processes in memory.values() for one in processes.values() for name in one.file_bytes}
        disk = _disk_table(site, sizes, _sources(read) | mapped)
        for unused in UNUSED:
            path = site / unused
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _memory(folder, bundle, site)
        left = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    weights = sum(stage.weight_bytes for stage in bundle.manifest.plan.stages)
    text = text_of(
        f"{platform.machine()}, Python {platform.python_version()}, apache-tvm {version('apache-tvm')}, {date.today()}",
        "",
        f"MB in memory; the pipeline has {weights / 1e6:.1f} MB of weights. What processes share counts once in all.",
        _memory_table(memory),
        "",
        "MB on disk, by package",
        disk,
        f"Without {' and '.join(UNUSED)}: {left / 1e6:.0f} MB; an agent runs the same pipeline.",
        width=100,
    )
    print(text, end="")
    save("footprint.txt", text)


def _bundle(folder: Path) -> Bundle:
    cluster = folder / "cluster.toml"
    cluster.write_text(_CLUSTER)
    return tvmpipe.build(save_model(chain(_LAYERS, _WIDTH), folder), cluster)


def _installed(folder: Path) -> Path:
    """The site-packages of a new environment with this project, and nothing that came with the environment itself."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    source = folder / "source"
    shutil.copytree(ROOT / "tvmpipe", source / "tvmpipe", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-q"]
    subprocess.run([*pip, "-c", str(ROOT / "requirements.lock"), str(source)], check=True)
    shutil.rmtree(source)
    (site,) = folder.glob("lib/python3*/site-packages")
    return site


def _memory(folder: Path, bundle: Bundle, site: Path) -> dict[str, dict[str, Resident]]:
    """Processes of an agent by name, when it has just started, with a pipeline, and when that was closed."""
    (site / "sitecustomize.py").write_text(_NOTE_READING.format(log=str(folder / "read"), site=f"{site}/"))
    key = folder / "key"
    if not key.exists():
        ClusterKey.generate(key)
    found = {}
    try:
        with local_cluster([], store=folder) as cluster, _agent(cluster.tracker, key, folder) as agent:
            time.sleep(3)
            found["idle"] = _processes(agent)
            with tvmpipe.connect(bundle, cluster.tracker, cluster_key=key) as pipe:
                (x,) = bundle.manifest.model.inputs
                for _ in range(10):
                    pipe.run({"x": np.ones(x.shape, np.float32)})
                found["with a pipeline"] = _processes(agent)
            time.sleep(3)
            found["idle again"] = _processes(agent)
    finally:
        (site / "sitecustomize.py").unlink()
    return found


@contextlib.contextmanager
def _agent(tracker: str, key: Path, folder: Path) -> Iterator[psutil.Process]:
    python = folder / "venv" / "bin" / "python"
    options = ["--tracker", tracker, "--key", "device", "--threads", "1", "--store", str(folder / "store")]
    process = subprocess.Popen(
        [python, "-m", "tvmpipe", "agent", *options, "--cluster-key", str(key)],
        start_new_session=True,
        preexec_fn=die_with_parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        cwd=folder,
    )
    try:
        wait_for_keys(tracker, ["device"], 120.0)
        yield psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _processes(agent: psutil.Process) -> dict[str, Resident]:
    found = {"agent": resident(agent.pid)}
    for process in agent.children(recursive=True):
        words = " ".join(process.cmdline())
        name = next((name for part, name in _NAMES.items() if part in words), "other")
        name = "session" if name in found else name  # forked from the RPC server
        found[name] = resident(process.pid)
    return found


def _memory_table(memory: Mapping[str, Mapping[str, Resident]]) -> Table:
    table = Table("when", "process", box=None)
    for column in ("resident", "its own", "of files"):
        table.add_column(column, justify="right")
    for when, processes in memory.items():
        for name, one in processes.items():
            shared = sum(one.file_bytes.values())
            table.add_row(when, name, *(f"{size / 1e6:.1f}" for size in (one.all_bytes, one.own_bytes, shared)))
        table.add_row(when, "in all", f"{together(processes.values()) / 1e6:.1f}", "", "")
    return table


def _sources(read: set[Path]) -> set[Path]:
    """Also the sources of what was read as bytecode."""
    cached = [path for path in read if path.parent.name == "__pycache__"]
    return read | {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in cached}


def _disk_table(site: Path, sizes: Mapping[Path, int], read: set[Path]) -> Table:
    table = Table("package", box=None)
    for column in ("MB", "never read"):
        table.add_column(column, justify="right")
    owners = {
        Path(str(file.locate())): found.name for found in distributions(path=[str(site)]) for file in found.files or ()
    }
    packages: dict[str, list[int]] = {}
    for path, size in sizes.items():
        counts = packages.setdefault(owners.get(path, "others"), [0, 0])
        counts[0] += size
        counts[1] += 0 if path in read else size
    others = packages.pop("others", [0, 0])
    largest = sorted(packages.items(), key=lambda one: -one[1][0])
    for name, (size, unread) in largest[:_SHOWN]:
        table.add_row(name, f"{size / 1e6:.1f}", f"{unread / 1e6:.1f}")
    rest = [others[place] + sum(counts[place] for _, counts in largest[_SHOWN:]) for place in (0, 1)]
    table.add_row("others", *(f"{size / 1e6:.1f}" for size in rest))
    whole = [rest[place] + sum(counts[place] for _, counts in largest[:_SHOWN]) for place in (0, 1)]
    table.add_row("in all", *(f"{size / 1e6:.1f}" for size in whole))
    return table


if __name__ == "__main__":
    main()
