"""Readers of the public formats: what they make of a file, what they refuse, and the command that solves one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from benchmarks import optima, results_file
from benchmarks.checker import check
from benchmarks.workloads import __main__ as command
from benchmarks.workloads import answer, moirai, msr, pipeedge
from tvmpipe.errors import InputError
from tvmpipe.passes.placement.problem import Schedule, Solution, Transfer

MOIRAI: dict[str, Any] = {
    "name": "small",
    "devices": 2,
    "device_mem": [3.0, 2.0],
    "time_unit": "ms",
    "tasks": [{"id": 7, "p": [2.0, 3.0], "m": 1.0}, {"id": 3, "p": [9.0, 4.0], "m": 2.0}],
    "edges": [{"src": 7, "dst": 3, "comm": [[0, 1.5], [2.5, 0]]}],
}
MSR: dict[str, Any] = {
    "maxSizePerFPGA": 10.0,
    "maxFPGAs": 2,
    "maxCPUs": 1,
    "nodes": [
        {"id": 4, "supportedOnFpga": 1, "cpuLatency": 50.0, "fpgaLatency": 5.0, "size": 6.0, "colorClass": 1},
        {"id": 2, "supportedOnFpga": 1, "cpuLatency": 50.0, "fpgaLatency": 4.0, "size": 4.0, "colorClass": 1},
        {"id": 9, "supportedOnFpga": 0, "cpuLatency": 3.0, "fpgaLatency": 0.0, "size": 1.0},
    ],
    "edges": [{"sourceId": 4, "destId": 2, "cost": 1.0}, {"sourceId": 4, "destId": 9, "cost": 1.0}],
}
PIPEEDGE: dict[str, Any] = {
    "models.yml": {"tiny": {"layers": 2, "mem_MB": [1.0, 1.0], "parameters_in": 1, "parameters_out": [2**20, 1]}},
    "device_types.yml": {
        "Fast-1": {
            "bw_Mbps": 32,
            "mem_MB": 2,
            "model_profiles": {
                "tiny": [
                    {"batch_size": 1, "dtype": "torch.float32", "time_s": [1.0, 1.0]},
                    {"batch_size": 2, "dtype": "torch.float32", "time_s": [2.0, 2.0]},
                ]
            },
        },
        "Slow-1": {
            "bw_Mbps": 16,
            "mem_MB": 2,
            "model_profiles": {"tiny": [{"batch_size": 1, "dtype": "torch.float32", "time_s": [3.0, 3.0]}]},
        },
    },
    "devices.yml": {"Fast-1": ["a"], "Slow-2": ["b"]},
}


def written(folder: Path, data: Any) -> Path:
    path = folder / "workload.json"
    path.write_text(json.dumps(data))
    return path


def boards(folder: Path, files: dict[str, Any]) -> Path:
    for name, data in files.items():
        (folder / name).write_text(yaml.safe_dump(data))
    return folder


def changed(data: dict[str, Any], keys: list[Any], value: Any) -> dict[str, Any]:
    """A copy in which what the keys lead to is another value; None takes it away."""
    data = copy.deepcopy(data)
    inner: Any = data
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return data


def test_a_moirai_file_is_read(tmp_path: Path) -> None:
    named = moirai.read(written(tmp_path, MOIRAI))
    schedule = Schedule((0.0, 3.5), (Transfer(0, 0, 1, 2.0, 3.5),))
    assert check(named.problem, Solution((0, 1), 7.5, 0.0, "by hand", schedule)).faults == ()
    assert (named.tasks, named.devices, named.unit) == ((7, 3), (0, 1), "ms")


def test_an_msr_file_is_read(tmp_path: Path) -> None:
    named = msr.read(written(tmp_path, MSR))
    verdict = check(named.problem, Solution((0, 0, 2), 10.0, 0.0, "by hand"))
    assert verdict.faults == ()  # 5 + 4, and 1 for what goes to the CPU, which pays nothing
    assert "do not share a device" in check(named.problem, Solution((0, 1, 2), 10.0, 0.0, "")).faults[0]
    assert "must not be on fpga1" in check(named.problem, Solution((0, 0, 1), 10.0, 0.0, "")).faults[0]


def test_pipeedge_files_are_read(tmp_path: Path) -> None:
    named = pipeedge.read(boards(tmp_path, PIPEEDGE), batch=1)
    assert named.devices == ("a", "b")  # the second type is spelled two ways
    assert check(named.problem, Solution((0, 1), 3.0, 0.0, "")).faults == ()
    # 4 MiB over the slower of 32 and 16 MiB-based Mbps takes 2 s.
    one_each = pipeedge.read(tmp_path / "devices.yml", boards=[("Fast", 1), ("Slow", 1), ("Fast-1", 1)], batch=1)
    assert one_each.devices == ("Fast-0", "Fast-1-1", "Slow-0")
    assert check(one_each.problem, Solution((0, 1), 0.0, 0.0, "")).figure_s == 1.0
    assert check(one_each.problem, Solution((0, 2), 0.0, 0.0, "")).figure_s == 3.0
    assert one_each.problem.transfer_s(one_each.problem.tensors[0], 0, 2) == 2.0


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (["device_mem"], None, "device_mem: Field required"),
        (["tasks", 0, "p"], None, "tasks.0.p: Field required"),
        (["tasks", 0, "p"], [1.0], "task 7 has 1 times for 2 devices"),
        (["tasks", 0, "p", 1], -1.0, "tasks.0.p.1: Input should be greater than or equal to 0"),
        (["tasks", 0, "p", 1], float("nan"), "tasks.0.p.1: Input should be"),
        (["tasks", 0, "m"], float("inf"), "tasks.0.m: Input should be a finite number"),
        (["tasks", 0, "id"], 3, "two tasks have the same id"),
        (["tasks"], [], "tasks: List should have at least 1 item"),
        (["devices"], 3, "device_mem has 2 numbers for 3 devices"),
        (["devices"], 0, "devices: Input should be greater"),
        (["edges", 0, "dst"], 8, "edge 7 -> 8 names a task that is not there"),
        (["edges", 0, "comm"], [[0, 1.5]], "edge 7 -> 3 has no 2 by 2 times"),
        (["edges", 0, "dst"], 7, "wait for each other in a circle: 7 -> 7"),
        (
            ["edges"],
            [{"src": a, "dst": b, "comm": [[0, 1], [1, 0]]} for a, b in ((7, 3), (3, 7))],
            "wait for each other in a circle: 7 -> 3 -> 7",
        ),
    ],
)
def test_a_wrong_moirai_file_is_one_sentence(tmp_path: Path, keys: list[Any], value: Any, says: str) -> None:
    _refused(lambda: moirai.read(written(tmp_path, changed(MOIRAI, keys, value))), says)


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (["maxFPGAs"], None, "maxFPGAs: Field required"),
        (["maxFPGAs"], -1, "maxFPGAs: Input should be greater"),
        (["maxFPGAs"], 10**12, "maxFPGAs: Input should be less"),
        (["nodes", 1, "fpgaLatency"], float("nan"), "nodes.1.fpgaLatency"),
        (["nodes", 1, "cpuLatency"], -0.5, "nodes.1.cpuLatency"),
        (["nodes", 1, "size"], "large", "nodes.1.size"),
        (["nodes", 1, "isBackwardNode"], True, "it has backward nodes"),
        (["nodes", 1, "id"], 4, "two nodes have the same id"),
        (["edges", 0, "cost"], 2.0, "node 4 has out-edges of different costs"),
        (["edges", 0, "destId"], 5, "edge 4 -> 5 names a node that is not there"),
        (["edges", 0, "destId"], 4, "wait for each other in a circle: 4 -> 4"),
    ],
)
def test_a_wrong_msr_file_is_one_sentence(tmp_path: Path, keys: list[Any], value: Any, says: str) -> None:
    _refused(lambda: msr.read(written(tmp_path, changed(MSR, keys, value))), says)


_FAST: list[Any] = ["device_types.yml", "Fast-1"]


@pytest.mark.parametrize(
    ("keys", "value", "options", "says"),
    [
        ([*_FAST, "bw_Mbps"], 0, {}, "a has no bandwidth"),
        ([*_FAST, "bw_Mbps"], -3, {}, "Fast-1.bw_Mbps"),
        ([*_FAST, "model_profiles", "tiny", 0, "time_s"], [1.0], {}, "a profile of tiny has 1 times"),
        ([*_FAST, "model_profiles", "tiny", 0, "time_s", 0], float("nan"), {}, "time_s.0: Input should be"),
        ([*_FAST, "model_profiles", "tiny", 0, "dtype"], "torch.complex", {}, "differ in batch or type"),
        ([*_FAST, "model_profiles"], None, {}, "Fast-1 has no profile of tiny"),
        (["models.yml", "tiny", "layers"], 3, {}, "tiny has 3 layers and lists of another length"),
        (["models.yml", "tiny", "mem_MB", 0], -1.0, {}, "tiny.mem_MB.0"),
        (["models.yml", "tiny", "parameters_out", 0], -1, {}, "tiny.parameters_out.0"),
        (["devices.yml"], {"Fast-1": []}, {}, "there are no boards"),
        (["devices.yml"], {"Fast-1": ["a", "a"]}, {}, "two boards have the same name"),
        (["devices.yml"], {"Other": ["a"]}, {}, "has no board type 'Other'; allowed: Fast-1, Slow-1"),
        (["devices.yml"], ["a"], {}, "the file: Input should be a valid dict"),
        ([], None, {"model": "huge"}, "has no model 'huge'; allowed: tiny"),
        ([], None, {"batch": 2}, "has no profile of tiny at batch 2"),
    ],
)
def test_wrong_pipeedge_files_are_one_sentence(
    tmp_path: Path, keys: list[Any], value: Any, options: dict[str, Any], says: str
) -> None:
    files = changed(PIPEEDGE, keys, value) if keys else PIPEEDGE
    _refused(lambda: pipeedge.read(boards(tmp_path, files), **options), says)


@pytest.mark.parametrize(
    "text", ["", "[", "[1, 2]", "null", pytest.param("[" * 100_000, id="deep"), '{"devices": "\\ud800"}', "\x00"]
)
def test_what_is_no_such_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "workload.json"
    path.write_text(text)
    _refused(lambda: moirai.read(path), "workload")
    _refused(lambda: msr.read(path), "workload")
    (tmp_path / "devices.yml").write_text(text if len(text) < 99 else "{" * 1000)
    _refused(lambda: pipeedge.read(tmp_path), "workload")
    _refused(lambda: moirai.read(tmp_path / "none.json"), "cannot be read")
    _refused(lambda: moirai.read(tmp_path), "cannot be read")


def _refused(read: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        read()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(command.main, [str(arg) for arg in args])


def test_the_command_prints_a_checked_schedule(tmp_path: Path) -> None:
    path = written(tmp_path, MOIRAI)
    result = invoke(path, "--format", "moirai", "--time-limit", 60, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    # Task 7 on device 0, 1.5 to send, task 3 on device 1; on one device alone it takes 7 where it fits.
    assert facts["objective"] == 7.5
    assert facts["bound"] == pytest.approx(7.5, rel=1e-6)
    assert facts["proven"]
    assert facts["checked"]
    assert facts["placement"] == {"7": 0, "3": 1}
    assert facts["schedule"]["tasks"] == [
        {"task": 7, "device": 0, "start": 0.0, "end": 2.0},
        {"task": 3, "device": 1, "start": 3.5, "end": 7.5},
    ]
    assert facts["schedule"]["transfers"] == [{"src": 7, "dst": 3, "from": 0, "to": 1, "start": 2.0, "end": 3.5}]
    assert (facts["unit"], facts["model"]) == ("ms", "makespan")
    table = invoke(path, "--format", "moirai")
    assert table.exit_code == 0
    assert "7.5" in table.stdout
    assert "checked" in table.stdout


def test_the_command_takes_options_of_each_format(tmp_path: Path) -> None:
    found = invoke(written(tmp_path, MSR), "--format", "msr", "--contiguous", "--json")
    assert json.loads(found.stdout)["objective"] == 10.0
    boards(tmp_path, PIPEEDGE)
    two = invoke(tmp_path / "devices.yml", "--format", "pipeedge", "--boards", "Fast=2", "--batch", 2, "--json")
    facts = json.loads(two.stdout)
    assert (facts["objective"], facts["proven"]) == (2.0, True)
    assert set(facts["placement"].values()) == {"Fast-0", "Fast-1"}


def test_the_command_simulates_its_answer(tmp_path: Path) -> None:
    path, trace = written(tmp_path, MOIRAI), tmp_path / "trace.json"
    result = invoke(path, "--format", "moirai", "--json", "--simulate", 1, "--trace", trace)
    assert json.loads(result.stdout)["simulation"] == {"samples": 1, "period": 7.5, "latency": 7.5, "end": 7.5}
    assert len([event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]) == 4
    boards(tmp_path, PIPEEDGE)
    many = invoke(tmp_path, "--format", "pipeedge", "--batch", 1, "--boards", "Fast=2", "--simulate", 20)
    assert "20 samples" in many.stdout
    assert "period 1 s" in many.stdout
    assert invoke(path, "--format", "moirai", "--jitter", 0.1).exit_code == 2


def test_errors_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = invoke(written(tmp_path, changed(MOIRAI, ["device_mem"], None)), "--format", "moirai")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert wrong.stderr.count("\n") == 1
    assert "device_mem" in wrong.stderr
    full = invoke(written(tmp_path, changed(MOIRAI, ["device_mem"], [0.5, 0.5])), "--format", "moirai", "--json")
    assert full.exit_code == 3
    assert json.loads(full.stdout)["error"] == "InfeasibleError"
    path = written(tmp_path, MOIRAI)
    assert invoke(path, "--format", "moirai", "--contiguous").exit_code == 2
    assert invoke(path, "--format", "pipeedge", "--boards", "Fast").exit_code == 2
    assert invoke(path, "--format", "gurobi").exit_code == 2
    monkeypatch.setattr(answer, "solve", lambda *_: Solution((0, 1), 7.0, 7.0, "a liar", Schedule((0.0, 3.0), ())))
    refused = invoke(path, "--format", "moirai")
    assert refused.exit_code == 5
    assert "the checker refuses the solution of 'a liar'" in refused.stderr


@pytest.mark.skipif(not optima.WORKLOADS.is_dir(), reason=f"the public workloads are not in {optima.WORKLOADS}")
@pytest.mark.parametrize("name", ["moirai example-1", "pipeedge ViT-Base 2+2", "msr bert24 contiguous", "msr bert24"])
def test_known_optima_are_found(name: str) -> None:
    row = next(row for row in optima.ROWS if row.name == name)
    # All but "msr bert24", which nothing proves, end long before; a loaded machine takes seconds to start a worker.
    found = optima.run(row, optima.WORKLOADS, time_limit_s=3.0 if name == "msr bert24" else 60.0)
    assert found["ok"], found


def test_rows_that_do_not_hold_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, MOIRAI)
    rows = [optima.Row(f"known as {known:g}", "workload.json", "moirai", known, 1, 60.0) for known in (7.4, 7.5)]
    monkeypatch.setattr(optima, "ROWS", rows)
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    result = CliRunner().invoke(optima.main, ["--workloads", str(tmp_path), "--json"])
    assert result.exit_code == 1
    assert [row["ok"] for row in json.loads(result.stdout)] == [False, True]
    assert "known as 7.5" in (tmp_path / "optima.txt").read_text()
    monkeypatch.setattr(optima, "ROWS", rows[1:])
    assert CliRunner().invoke(optima.main, ["--workloads", str(tmp_path)]).exit_code == 0
