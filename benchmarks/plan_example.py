"""Writes the plan that docs/placement.md explains: MobileNetV2 on a PC and two Raspberry Pis.

    python -m benchmarks.plan_example

Costs are those that tvmpipe comes with: measured for the PC, rooflines for the boards.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.models import write_model

RESULT = Path(__file__).parent / "results" / "plan_example.txt"
MODEL = "mobilenet_v2"
CLUSTER = """
[[device]]
name = "desk"
target = "x86-64-v3"
threads = 1

[[device]]
name = "pi-a"
target = "pi4"
memory = "2GiB"

[[device]]
name = "pi-b"
target = "pi5"
memory = "4GiB"
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_model(MODEL, Path(folder))
        (Path(folder) / "cluster.toml").write_text(CLUSTER.lstrip())
        command = ["tvmpipe", "explain", f"{MODEL}.onnx", "--cluster", "cluster.toml"]
        (Path(folder) / "none").mkdir()
        options = ["--profiles", str(Path(folder) / "none")]  # nothing that the user of this machine measured
        done = subprocess.run(
            [sys.executable, "-m", *command, *options], cwd=folder, capture_output=True, text=True, check=True
        )
    RESULT.write_text(f"$ cat cluster.toml{CLUSTER}\n$ {' '.join(command)}\n{done.stdout}")


if __name__ == "__main__":
    main()
