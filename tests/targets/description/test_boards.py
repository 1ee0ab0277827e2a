"""The boards that come with tvmpipe, and this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

import tvmpipe
from tvmpipe.errors import ClusterError
from tvmpipe.targets.description import llvm
from tvmpipe.targets.description.boards import FOLDER, boards, find_target, target_names
from tvmpipe.targets.store.profile_store import store_key

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

PACKAGE = Path(tvmpipe.__file__).parent


def test_each_is_listed_once_and_no_user_s_own() -> None:
    names = target_names()
    assert {"native", "pi4", "pi5", "jetson-nano", "x86-64-v2"} <= set(names)
    assert len(set(names)) == len(names)
    assert not any(board.board for board in boards())
    # An empty glob would raise nothing.
    tables = [table for path in FOLDER.glob("*.toml") for table in tomllib.loads(path.read_text())["target"]]
    assert sorted(table["name"] for table in tables) == sorted(names[1:])


def test_their_files_are_in_the_wheel() -> None:
    project = PACKAGE.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("no source tree")
    patterns = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]["tvmpipe"]
    for path in PACKAGE.rglob("*.toml"):
        assert any(fnmatch(path.relative_to(PACKAGE).as_posix(), pattern) for pattern in patterns), path


@pytest.mark.parametrize("name", target_names())
def test_each_is_one_that_llvm_has(name: str) -> None:
    target = find_target(name)
    llvm.check_processor(target.triple, target.cpu, target.features)
    assert target.vector_bits == llvm.vector_bits(target.triple, target.cpu, target.features)
    assert target.vector_registers == llvm.vector_registers(target.triple, target.vector_bits)
    assert target.peak_flops(10_000) == target.peak_flops(target.cores) > 0
    assert int(target.tvm_target(2).attrs["num-cores"]) == 2


@pytest.mark.skipif(find_target("native").architecture != "x86_64", reason="levels of x86-64")
def test_this_machine_is_its_best_level() -> None:
    native = find_target("native")
    levels = [find_target(name) for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4")]
    assert native.cpu == [level.cpu for level in levels if native.runs(level)][-1]
    assert store_key(native, 1) == store_key(find_target(native.cpu), 1)  # so that what is measured of it holds


def test_a_user_s_own_are_found_by_name() -> None:
    own = replace(find_target("pi5"), name="rock", board="rock")
    assert find_target("rock", [own]) == own
    assert find_target("pi5", [own]) == find_target("pi5")
    with pytest.raises(ClusterError, match=r"target 'rok' is not known; allowed: native, .*pi5.*, rock"):
        find_target("rok", [own])


def test_measurements_of_own_boards_are_kept_apart() -> None:
    pi = find_target("pi5")
    rock, other = (replace(pi, name=name, board=name) for name in ("rock", "other"))
    dot = replace(rock, features=("+dotprod",))
    keys = [store_key(target, threads) for target in (pi, rock, other, dot) for threads in (1, 4)]
    assert len(set(keys)) == 8
    assert keys[0] == "aarch64-linux-gnu-cortex-a76-1"
    assert keys[2] == "aarch64-linux-gnu-cortex-a76.rock-1"
    assert store_key(replace(rock, clock_hz=1e9, cores=8), 1) == keys[2]
