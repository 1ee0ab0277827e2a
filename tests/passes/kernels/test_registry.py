"""A kernel is a folder and a line of the list; whoever estimates costs knows all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.targets.cost.synthetic import measurements
from tvmpipe.passes import kernels
from tvmpipe.passes.kernels import KERNELS
from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.targets.cost import kernel_costs
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.features import feature_names, features
from tvmpipe.targets.cost.kernel_costs import KernelCost, kernel_names, register
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.phases import Phases
from tvmpipe.targets.cost.rates import resources
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.store.profile_store import ProfileStore

FOLDER = Path(kernels.__file__).parent
V3 = find_target("x86-64-v3")


def test_every_folder_is_a_kernel_of_its_name() -> None:
    assert sorted(KERNELS) == sorted(path.parent.name for path in FOLDER.glob("*/compute.py"))
    assert tuple(KERNELS) == kernel_names()
    for name, kernel in KERNELS.items():
        assert kernel.name == name


def test_features_of_kernels_keep_their_order() -> None:
    """What was learned from measurements counts on it."""
    names = [name for name in feature_names() if name.startswith("is_")]
    own = ["attention", "conv2d", "depthwise", "matmul", "pool", "rows", "winograd", "recurrent"]
    own += ["integer_conv2d", "integer_matmul", "weight_only_matmul", "cached_attention"]
    assert names == [f"is_{kernel}" for kernel in own] + ["is_scatter", "is_join"]
    assert len(feature_names()) == 53


def scan(_schedule: Any, _block: Any, _cpu: Any) -> None:
    """No loops to cut."""


def test_a_new_kernel_has_its_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named once; features, rates and phases follow."""
    before = feature_names()
    monkeypatch.setattr(kernel_costs, "_costs", dict(kernel_costs._costs))
    new = Kernel("scan", scan, KernelCost(lambda work, target, threads: Phases(cycles=7e9 / threads), operands=2))
    register(new.name, new.cost)
    assert [name for name in feature_names() if name not in before] == ["is_scan"]
    work = Work(1e9, 4000, 0, 2000, ("scan",), kernel="scan")
    found = features(work, V3, 1)
    assert (found["is_scan"], found["is_rows"]) == (1.0, 0.0)
    assert 2 ** found["cold"] == pytest.approx(4000)  # one of two operands, and the result
    assert resources(work, V3, 1)[0] == pytest.approx(7e9 / V3.clock_hz)


def test_names_are_taken_once() -> None:
    with pytest.raises(ValueError, match="two kernels are called 'matmul'"):
        register("matmul", KERNELS["matmul"].cost)


def test_an_unknown_kernel_is_refused_and_not_priced_as_none() -> None:
    with pytest.raises(LookupError, match=r"'scan' is not registered; .*tvmpipe\.passes\.kernels registers: attention"):
        features(Work(1.0, kernel="scan"), V3, 1)


def test_measurements_of_unknown_kernels_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of tvmpipe may have made them."""
    store = ProfileStore(tmp_path)
    rows = measurements(V3, 1, 70)
    store.add_all(V3, 1, rows)
    assert LearnedCost([store]).usual_tiles_s(V3) is None  # nobody watched
    assert len(LearnedCost([store])._rows(V3, 1)) == len(rows)
    without = {name: cost for name, cost in kernel_costs._costs.items() if name != "matmul"}
    monkeypatch.setattr(kernel_costs, "_costs", without)
    assert LearnedCost([store])._rows(V3, 1) == {}


BY_DEFAULT = """
from tvmpipe.passes.planning.default_cost import default_cost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.cluster import Device
from tvmpipe.targets.description.boards import find_target
work = Work(1e9, 4000, 4000, 4000, ("matmul",), "0" * 32, "matmul", (64, 64), (64,), 1e9)
print(default_cost().estimate(work, Device("d", "d", find_target("x86-64-v3"), 1, None)).source)
"""
ALONE = """
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.cost.features import features
from tvmpipe.targets.description.boards import find_target
features(Work(1e9, kernel="matmul"), find_target("x86-64-v3"), 1)
"""
WITHOUT_A_KERNEL = ALONE.replace(', kernel="matmul"', "")


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"XDG_CACHE_HOME": str(home), "PYTHONPATH": str(FOLDER.parents[2]), "PATH": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)


def test_the_default_cost_model_knows_all_kernels(tmp_path: Path) -> None:
    """In a program that imports nothing else of the compiler."""
    done = run(BY_DEFAULT, tmp_path)
    assert done.stdout.strip() == "xgboost", done.stderr


@pytest.mark.parametrize("code", [ALONE, WITHOUT_A_KERNEL])
def test_costs_without_the_kernels_are_refused(code: str, tmp_path: Path) -> None:
    """A feature vector without the kernels' columns would be another model's."""
    done = run(code, tmp_path)
    assert done.returncode != 0
    assert "no kernel is registered; import tvmpipe.passes.kernels, which registers them" in done.stderr
