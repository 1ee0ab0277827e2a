"""The boards that come with tvmpipe, and this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

import tvmpipe
from tvmpipe.errors import ClusterError
from tvmpipe.targets.description import host, llvm
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
    same = find_target(f"{native.cpu}-vnni" if native.features else native.cpu)
    assert store_key(native, 1) == store_key(same, 1)  # so that what is measured of it holds
    assert store_key(native.plain, 1) == store_key(find_target(native.cpu), 1)


@pytest.mark.parametrize(
    ("has", "name"),
    [
        ({"avx512vnni"}, "x86-64-v4-vnni"),
        ({"avx512vnni", "avxvnni"}, "x86-64-v4-vnni"),
        (set(), "x86-64-v4"),
        ({"-avx512bw", "avxvnni"}, "x86-64-v3-vnni"),
        ({"-avx512bw"}, "x86-64-v3"),
        ({"-avx512bw", "avx512vnni"}, "x86-64-v3"),  # which is only for vectors of 512 bits
        ({"-avx512bw", "-fma", "avxvnni"}, "x86-64-v2"),
    ],
)
def test_a_level_is_with_products_of_bytes_where_the_machine_has_them(
    has: set[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tvm
    from tvm.target import codegen

    there = {one for level in host._X86_LEVELS.values() for one in level} | has
    features = {one: f"-{one}" not in has for one in there}
    monkeypatch.setattr(codegen, "llvm_get_system_triple", lambda: "x86_64-unknown-linux-gnu")
    monkeypatch.setattr(tvm, "get_global_func", lambda _: lambda: features)
    found = host.describe_host(boards())
    assert found.identity == find_target(name).identity


def test_code_with_products_of_bytes_runs_only_where_they_are() -> None:
    v3, v3_vnni, v4, v4_vnni = (find_target(f"x86-64-{name}") for name in ("v3", "v3-vnni", "v4", "v4-vnni"))
    assert v4_vnni.runs(v4)
    assert v4_vnni.runs(v3)
    assert not v4.runs(v4_vnni)
    assert not v3.runs(v3_vnni)
    assert not v4_vnni.runs(v3_vnni)  # Zen 4 has the one and not the other
    assert find_target("pi5").runs(find_target("pi4"))
    assert not find_target("pi4").runs(find_target("pi5"))


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
