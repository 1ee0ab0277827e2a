"""Stdout is the caller's: nothing that runs in C, and nothing of a solver, may stand between its lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models import chain, save
from tests.passes.placement import brute
from tvmpipe.passes.placement.exact.engine import Engine
from tvmpipe.passes.placement.exact.period_program import solve_program
from tvmpipe.passes.placement.exact.task import Task
from tvmpipe.passes.placement.feasible import least_shortage
from tvmpipe.passes.placement.latency.instance import read
from tvmpipe.passes.placement.latency.relaxation import relaxation_s
from tvmpipe.passes.placement.limits import Deadline
from tvmpipe.passes.placement.problem import Model, Problem, Tensor
from tvmpipe.passes.placement.throughput.period_bounds import period_bound

TWO = """
[[device]]
name = "a"
memory = "{memory}"
[[device]]
name = "b"
memory = "{memory}"
"""


def python(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_libraries_print_in_c_goes_to_stderr() -> None:
    program = """
import ctypes, os, subprocess, sys
from tvmpipe.commands.stdout import reserve_stdout
print("before")
reserve_stdout()
ctypes.CDLL(None).puts(b"a banner")
os.write(1, b"another\\n")
subprocess.run([sys.executable, "-c", "print('a child')"])
print("after")
"""
    assert python(program) == "before\nafter\n"


def test_a_closed_stdout_is_no_error() -> None:
    program = "from tvmpipe.commands.stdout import reserve_stdout; import os, sys; os.close(1); reserve_stdout()"
    assert python(program + "; sys.stdout = None") == ""


def test_a_program_that_builds_owns_its_stdout(tmp_path: Path) -> None:
    cluster = tmp_path / "two.toml"
    cluster.write_text(TWO.format(memory="700KiB"))
    program = """
import sys, tvmpipe
for objective in ("throughput", "latency"):
    bundle = tvmpipe.build(sys.argv[1], sys.argv[2], objective=objective, time_limit_s=3, replicate=True)
    print(objective, len(bundle.manifest.plan.stages))
"""
    assert python(program, save(chain(4, 256), tmp_path), cluster) == "throughput 2\nlatency 2\n"


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_json_is_all_that_a_command_prints(tmp_path: Path, objective: str) -> None:
    cluster = tmp_path / "two.toml"
    cluster.write_text(TWO.format(memory="700KiB"))
    model = save(chain(4, 256), tmp_path)
    command = [sys.executable, "-m", "tvmpipe", "plan", str(model), "--cluster", str(cluster), "--json"]
    command += ["--objective", objective, "--time-limit", "3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout == json.dumps(json.loads(result.stdout), indent=2) + "\n"


@pytest.mark.parametrize("model", ["overlapped", "summed", "makespan"])
def test_solvers_print_nothing(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    nodes, devices = 7, 3
    problem = Problem(
        names=tuple(f"n{node}" for node in range(nodes)),
        devices=("a", "b", "c"),
        time_s=random.uniform(1, 5, (nodes, devices)),
        weight_bytes=random.uniform(1, 3, nodes),
        working_bytes=np.ones(nodes),
        memory_bytes=np.full(devices, 8.0),
        tensors=tuple(Tensor(node, (node + 1,), 1.0) for node in range(nodes - 1)),
        bandwidth_bps=np.ones((devices + 1, devices + 1)),
        latency_s=np.full((devices + 1, devices + 1), 0.1),
        model=model,
    )
    least_shortage(problem)
    if model == "makespan":
        relaxation_s(read(problem), 5.0)
        with Engine() as engine:
            engine.solve([Task(read(problem), 100.0, 5.0)], Deadline(5.0))
    else:
        best = brute.least_period(problem)
        assert best is not None
        period_bound(problem, Deadline(5.0))
        solve_program(problem, 0.0, 100.0, 10.0, start=best.device_of, better=lambda figure, bound: None)
        solve_program(problem, 0.0, best.figure_s / 2, 10.0)
    assert capfd.readouterr().out == ""
