"""What a compilation tells of itself, and what it writes down of its modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import chain
from tvmpipe.errors import InputError
from tvmpipe.passes import driver
from tvmpipe.passes.monitor import Monitor
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.rewrite.order import REWRITES
from tvmpipe.targets.description.cluster import parse_cluster

TWO = parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(2)))
PINS = {"000.*": "d0", "001.*": "d1"}


def test_progress_names_every_pass_in_order_and_dumps_follow_modules(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    monitor = Monitor(driver.COMPILE, lambda name, number, total, seconds: said.append((name, number, total)), tmp_path)
    options = BuildOptions(time_limit_s=2.0, pins=PINS, failover=True)
    driver.compile(driver.plan(driver.front(chain(2, 64), monitor=monitor), TWO, options, monitor), monitor)
    total = len(driver.COMPILE)
    assert [(name.split(":")[0], number) for name, number, _ in said] == [
        *((name, number) for number, name in enumerate(driver.COMPILE)),
        ("done", total),
    ]
    assert {count for *_, count in said} == {total}
    titles = dict(name.split(": ") for name, *_ in said if ": " in name)
    assert titles == {"failover": "plans without each of d0, d1", "lower": "4 stages of 3 plans"}
    names = sorted(path.name for path in tmp_path.iterdir())
    cut = [f"06-partition-{stage}.py" for stage in ("d0-s0", "d1-s0", "s0", "s1")]
    rewrites = [f"01-fuse-{number:02d}-{rewrite.name}.py" for number, rewrite in enumerate(REWRITES)]
    assert names == ["00-import.py", *rewrites, "01-fuse.py", *cut]
    assert "R.matmul" in (tmp_path / "00-import.py").read_text()
    assert "call_tir" in (tmp_path / "01-fuse.py").read_text()


def test_a_pass_within_another_tells_as_that_one() -> None:
    said: list[tuple[str, int]] = []
    monitor = Monitor(("a", "b"), lambda name, number, total, seconds: said.append((name, number)))
    monitor.begin("b")
    inner = monitor.within()
    inner.begin("a")
    inner.tell("too soon")
    monitor._last_said = float("-inf")
    inner.tell("half of it")
    assert said == [("b", 1), ("b: half of it", 1)]


def test_a_dump_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"dump folder .*file/folder cannot be made: Not a directory"):
        Monitor(driver.FRONT, dump=tmp_path / "file" / "folder")
