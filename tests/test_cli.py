"""The commands as people type them: results, one sentence for each mistake, exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from tests.models import branchy
from tvmpipe.bundle import Bundle
from tvmpipe.cli import invoke
from tvmpipe.commands.samples import random_samples
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalCluster


def tvmpipe(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command; (stdout, stderr). In this process, since another would first import TVM."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = invoke([str(argument) for argument in arguments])
    assert found == code, f"exit {found}\n{out.getvalue()}\n{err.getvalue()}"
    return out.getvalue(), err.getvalue()


def in_a_process(*arguments: object, code: int = 0) -> tuple[str, str]:
    """The same in a process of its own, as a shell starts it."""
    command = [sys.executable, "-m", "tvmpipe", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == code, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr
    return result.stdout, result.stderr


def sentence(stderr: str) -> str:
    """The one line that says what was wrong."""
    lines = [line for line in stderr.splitlines() if line.startswith("tvmpipe: error:")]
    assert len(lines) == 1, stderr
    return lines[0]


def test_show(branchy_path: Path) -> None:
    out, _ = tvmpipe("show", branchy_path)
    assert "conv2d" in out
    facts = json.loads(tvmpipe("show", branchy_path, "--json")[0])
    assert {"name", "operators", "flops", "weight_bytes", "input_bytes", "output_bytes"} <= set(facts["primitives"][0])
    assert facts["weight_bytes"] > 0


def test_compile_edit_plan_compile_run(
    tmp_path: Path, branchy_path: Path, cluster_path: Path, agents: LocalCluster
) -> None:
    """The whole way by hand, with a node moved in between; both bundles give ONNX Runtime's results."""
    first = tmp_path / "first.tvmpipe"
    report = json.loads(tvmpipe("compile", branchy_path, "--cluster", cluster_path, "-o", first, "--json")[0])
    assert report["bundle"] == str(first)
    plan = yaml.safe_load((first / "plan.yaml").read_text())
    names = list(plan["placement"])
    moved = {name: "beta" if i % 2 else "gamma" for i, name in enumerate(names)}
    assert moved != plan["placement"]
    plan["placement"] = moved
    edited = tmp_path / "edited.yaml"
    edited.write_text(yaml.safe_dump(plan))
    second = tmp_path / "second.tar"
    out, _ = tvmpipe("compile", branchy_path, "--cluster", cluster_path, "--plan", edited, "-o", second)
    assert "gamma" in out

    sample = random_samples(Bundle(first, _manifest(first)).manifest, 1, seed=9)[0]
    np.savez(tmp_path / "in.npz", **sample)  # type: ignore[arg-type]
    reference = Reference(branchy().SerializeToString())
    stages = []
    for bundle, result in ((first, "a.npz"), (second, "b.npz")):
        out, _ = tvmpipe(
            *("run", bundle, "--tracker", agents.tracker, "--input", tmp_path / "in.npz"),
            *("-o", tmp_path / result, "--repeat", 1, "--json"),
        )
        facts = json.loads(out)
        stages.append([(stage["name"], stage["device"]) for stage in facts["stages"]])
        with np.load(tmp_path / result) as have:
            assert reference.compare(dict(have), sample).equal
    assert stages[0] != stages[1]


def _manifest(root: Path) -> Any:
    from tvmpipe.manifest import Manifest

    return Manifest.model_validate_json((root / "manifest.json").read_bytes())


def test_plan_without_compiling(tmp_path: Path, branchy_path: Path, cluster_path: Path) -> None:
    out, _ = tvmpipe("plan", branchy_path, "--cluster", cluster_path, "-o", tmp_path / "p.yaml", "--json")
    facts = json.loads(out)
    assert facts["placement"] == yaml.safe_load((tmp_path / "p.yaml").read_text())["placement"]
    assert facts["bound_s"] <= facts["period_s"]
    out, _ = tvmpipe("plan", branchy_path, "--cluster", cluster_path, "--plan", tmp_path / "p.yaml", "--simulate", 60)
    assert "60 samples" in out


def test_simulated_turns_have_the_plans_period(tmp_path: Path, chain_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(
        "".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(3)) + '[network]\nbandwidth = "10GB/s"\n'
    )
    arguments = ("--cluster", cluster, "--replicate", "--time-limit", 4, "--simulate", 300, "--json")
    facts = json.loads(tvmpipe("plan", chain_path, *arguments)[0])
    assert any(isinstance(place, list) for place in facts["placement"].values())
    assert facts["simulated"]["period_s"] == pytest.approx(facts["period_s"], rel=3e-3)
    assert facts["simulated"]["latency_s"] >= facts["latency_s"] * 0.999


def test_explain(branchy_path: Path, cluster_path: Path) -> None:
    out, _ = tvmpipe("explain", branchy_path, "--cluster", cluster_path, "--time-limit", 4, "--json")
    explanation = json.loads(out)["explanation"]
    assert [device["name"] for device in explanation["devices"]] == ["alpha", "beta", "gamma"]
    assert all(device["used"] or device["why_unused"] for device in explanation["devices"])
    assert {change["change"] for change in explanation["what_if"]} >= {"one more alpha", "twice the bandwidth"}
    out, _ = tvmpipe("explain", branchy_path, "--cluster", cluster_path, "--time-limit", 4, "--objective", "latency")
    assert "What would change it" in out


def test_plans_for_losses_and_encoded_links(tmp_path: Path, chain_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(
        "".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(2))
        + '[[link]]\nbetween = ["d0", "d1"]\nbandwidth = "100kB/s"\n'
    )
    pins = ("--pin", "00[0-2]*=d0", "--pin", "00[3-5]*=d1")
    arguments = (chain_path, "--cluster", cluster, *pins, "--failover", "--compress", "fp16")
    facts = json.loads(tvmpipe("plan", *arguments, "--json")[0])
    assert [spare["lost"] for spare in facts["spares"]] == ["d0", "d1"]
    assert {"sender": "d0", "receiver": "d1", "encoding": "fp16"}.items() <= facts["links"][1].items()
    out, err = tvmpipe("compile", *arguments, "-o", tmp_path / "b")
    assert "the bottleneck is d0 -> d1" in out
    assert "If a device is lost" in out
    assert "failover: plans without each of d0, d1" in err
    assert "lower: 4 stages of 3 plans" in err
    assert [plan.lost for plan in _manifest(tmp_path / "b").plans] == [None, "d0", "d1"]


def test_devices(agents: LocalCluster) -> None:
    facts = json.loads(tvmpipe("devices", "--tracker", agents.tracker, "--json")[0])
    totals = {entry["key"]: entry["total"] for entry in facts}  # other tests may have left keys of their own
    assert {key: totals.get(key) for key in ("alpha", "beta", "gamma")} == {"alpha": 1, "beta": 1, "gamma": 1}


def test_top_once(agents: LocalCluster) -> None:
    facts = json.loads(in_a_process("top", "--tracker", agents.tracker, "--once", "--json")[0])
    assert facts["tracker"] == agents.tracker
    assert [(entry["key"], entry["kind"]) for entry in facts["devices"]] == [
        ("alpha", "agent"), ("beta", "agent"), ("gamma", "agent")
    ]  # fmt: skip
    entry = facts["devices"][0]
    assert (entry["held_by"], entry["emulated"], entry["stages"]) == (None, None, [])
    assert entry["memory_bytes"] > 0
    out, _ = in_a_process("top", "--tracker", agents.tracker)  # no terminal: one table
    assert out.count("agent") == 3
    assert "no tracker answers" in sentence(in_a_process("top", "--tracker", "127.0.0.1:1", "--once", code=4)[1])


def test_doctor(agents: LocalCluster) -> None:
    steps = json.loads(tvmpipe("doctor", "--tracker", agents.tracker, "--key", "alpha", "--json")[0])
    assert {step["result"] for step in steps} == {"ok", "skipped"}
    assert {"device", "name", "result", "message", "remedy"} == set(steps[0])
    steps = json.loads(tvmpipe("doctor", "--tracker", agents.tracker, "--key", "delta", "--json", code=4)[0])
    assert [step["name"] for step in steps if step["result"] == "failed"] == ["keys"]
    out, _ = tvmpipe("doctor", "--tracker", "127.0.0.1:1", code=4)
    assert "tvmpipe tracker --port 1" in out
    assert "1 failed" in out


def test_version_and_help() -> None:
    assert "version" in in_a_process("--version")[0]
    out, _ = in_a_process("--help")
    for command in ("compile", "run", "plan", "show", "devices", "agent", "key", "demo", "top", "doctor"):
        assert command in out


def test_mistakes_of_the_compiler(tmp_path: Path, branchy_path: Path, cluster_path: Path) -> None:
    out = tmp_path / "out.tvmpipe"

    def fails(model: Path, cluster: Path, code: int, message: str, *more: object) -> None:
        _, err = tvmpipe("compile", model, "--cluster", cluster, "-o", out, *more, code=code)
        assert message in sentence(err)
        assert not out.exists()
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    fails(tmp_path / "none.onnx", cluster_path, 1, "none.onnx does not exist")
    fails(tmp_path, cluster_path, 1, f"{tmp_path} is not a file")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(branchy_path.read_bytes()[:1000])
    fails(cut, cluster_path, 1, "cut.onnx is not a complete ONNX file")
    misspelt = tmp_path / "misspelt.toml"
    misspelt.write_text('[[device]]\nname = "a"\nthread = 1\n')
    fails(branchy_path, misspelt, 1, "misspelt.toml line 3: [[device]] has no key 'thread'; allowed: name")
    tiny = tmp_path / "tiny.toml"
    tiny.write_text('[[device]]\nname = "a"\nmemory = "1KiB"\n')
    fails(branchy_path, tiny, 3, "bytes are missing")
    fails(branchy_path, cluster_path, 1, "no input of the model; allowed: image, ids", "--shape", "x=1,2")
    fails(branchy_path, cluster_path, 1, "pin 'nothing' matches no primitive", "--pin", "nothing=alpha")
    fails(branchy_path, cluster_path, 1, "absent.yaml does not exist", "--plan", tmp_path / "absent.yaml")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    _, err = tvmpipe("compile", branchy_path, "--cluster", cluster_path, "-o", tmp_path / "mine", "--force", code=1)
    assert "is no bundle; it is not replaced" in sentence(err)


def test_an_open_dimension_is_fixed_by_its_name(tmp_path: Path, cluster_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length"]) for name in "xwy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "sum", values[:2], values[2:])
    model = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(model))
    _, err = tvmpipe("show", model, code=1)
    assert "'x' has open dimensions [batch,length], 'w' has open dimensions [batch,length]" in sentence(err)
    assert sentence(err).endswith("--dim batch=1 --dim length=1")
    out, _ = tvmpipe("show", model, "--dim", "batch=2", "--dim", "length=5", "--json")
    assert [spec["shape"] for spec in json.loads(out)["inputs"]] == [[2, 5], [2, 5]]
    out, _ = tvmpipe(
        "plan", model, "--cluster", cluster_path, "--dim", "batch=2", "--shape", "x=2,5", "--shape", "w=2,5"
    )
    assert "Plan of open" in out
    np.save(tmp_path / "w.npy", np.ones((2, 5), np.float32))
    out, _ = tvmpipe("show", model, "--value", f"w=@{tmp_path / 'w.npy'}", "--json")
    assert [(spec["name"], spec["shape"]) for spec in json.loads(out)["inputs"]] == [("x", [2, 5])]
    _, err = tvmpipe("show", model, "--value", "w=1,2.5,-3e2", code=1)
    assert "--value w has shape [3], which does not fit the model's [batch,length]" in sentence(err)


def test_mistakes_are_json_too(tmp_path: Path) -> None:
    out, _ = tvmpipe("show", tmp_path / "none.onnx", "--json", code=1)
    assert json.loads(out)["error"] == "ModelError"


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile"],
        ["compile", "m.onnx", "--cluster", "c.toml", "--objective", "speed"],
        ["compile", "m.onnx", "--cluster", "c.toml", "--shape", "x=1,,8"],
        ["show", "m.onnx", "--dim", "batch"],
        ["show", "m.onnx", "--dim", "batch=0"],
        ["show", "m.onnx", "--value", "rate"],
        ["show", "m.onnx", "--value", "rate=fast"],
        ["show", "m.onnx", "--value", "rate=1,,2"],
        ["show", "m.onnx", "--value", "rate=@none.npy"],
        ["compile", "m.onnx", "--cluster", "c.toml", "--compress", "zip"],
        ["compile", "m.onnx", "--cluster", "c.toml", "--time-limit", "nan"],
        ["compile", "m.onnx", "--cluster", "c.toml", "--profiles", "none"],
        ["plan", "m.onnx", "--cluster", "c.toml", "--simulate", "3", "--jitter", "inf"],
        ["run", "b", "--tracker", "x", "--seed", "-1"],
        ["frobnicate"],
        ["run", "b", "--trucker", "x"],
        ["agent", "--tracker", "127.0.0.1:1", "--key", "a", "--memory", "lots"],
        ["agent", "--tracker", "127.0.0.1:1", "--key", "a b"],
        ["agent", "--tracker", "127.0.0.1:1", "--key", "a", "--port", "70000"],
        ["agent", "--tracker", "127.0.0.1:1", "--key", "a", "--metrics-port", "0"],
        ["top"],
        ["doctor", "--tracker", "127.0.0.1:1", "--key", "a b"],
    ],
)
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    tvmpipe(*arguments, code=2)


def test_mistakes_of_a_run(tmp_path: Path, branchy_bundle: Bundle, agents: LocalCluster) -> None:
    good = tmp_path / "bundle"
    branchy_bundle.save(good)
    sample = random_samples(branchy_bundle.manifest, 1, seed=0)[0]

    def fails(code: int, message: str, *arguments: object, bundle: Path = good, tracker: str = agents.tracker) -> None:
        _, err = tvmpipe("run", bundle, "--tracker", tracker, *arguments, code=code)
        assert message in sentence(err)

    def given(**arrays: Any) -> Path:
        path = tmp_path / "in.npz"
        np.savez(path, **{**sample, **arrays})
        return path

    fails(1, "does not exist", "--random", 1, bundle=tmp_path / "nothing")
    fails(1, "there is nothing to run")
    fails(1, "input 'extra' is not one of the model's; allowed: image, ids", "-i", given(extra=np.zeros(1)))
    fails(1, "input 'ids' has dtype int32; the model takes int64", "-i", given(ids=np.zeros((1, 4), np.int32)))
    fails(1, "input 'ids' has shape [4, 1]", "-i", given(ids=np.zeros((4, 1), np.int64)))
    (tmp_path / "text.npz").write_text("hello")
    fails(1, "text.npz is no .npy or .npz file", "-i", tmp_path / "text.npz")
    (tmp_path / "cut.npz").write_bytes(given().read_bytes()[:-100])
    fails(1, "cut.npz is no .npy or .npz file", "-i", tmp_path / "cut.npz")
    fails(1, "the model has 2 outputs", "--random", 1, "-o", tmp_path / "out.npy")
    fails(1, "must end in .npz", "--random", 1, "-o", tmp_path / "out.txt")
    fails(1, "is not a file in a folder that exists", "--random", 1, "--trace", tmp_path / "nowhere" / "out.json")
    fails(1, "is not of the form HOST:PORT", "--random", 1, tracker="localhost")
    fails(4, "no tracker answers at 127.0.0.1:1", "--random", 1, tracker="127.0.0.1:1")
    library = good / branchy_bundle.manifest.plan.stages[0].library.path
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    fails(1, "stages/s0.so of", "--random", 1)


def test_mistakes_of_an_agent(tmp_path: Path) -> None:
    def fails(message: str, *arguments: object) -> None:
        _, err = tvmpipe("agent", "--tracker", "127.0.0.1:1", "--key", "a", *arguments, code=1)
        assert message in sentence(err)

    (tmp_path / "file").touch()
    fails("cannot be written", "--store", tmp_path / "file")
    tvmpipe("key", tmp_path / "key")
    elsewhere = ("--host", "203.0.113.1", "--store", tmp_path / "s")
    fails("off loopback (203.0.113.1) an agent needs --cluster-key FILE", *elsewhere)
    fails("cannot listen on 203.0.113.1", *elsewhere, "--cluster-key", tmp_path / "key")
    _, err = tvmpipe("agent", "--tracker", "127.0.0.1:1", "--key", "a", "--threads", 999999, code=2)
    assert "Invalid value for '--threads': 999999 is not in the range 1<=x<=1024." in err
    fails("no port from 9100 to 9099 is free", "--port", 9100, "--port-end", 9100, "--store", tmp_path / "s")


def test_unknown_device_key(tmp_path: Path, branchy_path: Path, agents: LocalCluster) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('[[device]]\nname = "a"\nkey = "delta"\n')
    tvmpipe("compile", branchy_path, "--cluster", cluster, "-o", tmp_path / "b")
    _, err = tvmpipe("run", tmp_path / "b", "--tracker", agents.tracker, "--random", 1, code=4)
    assert "no device with key 'delta' is registered" in sentence(err)
