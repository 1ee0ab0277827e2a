"""The list of rewrites, and what `--dump` shows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import chain
from tvmpipe.errors import UnsupportedModelError
from tvmpipe.passes import driver
from tvmpipe.passes.monitor import Monitor
from tvmpipe.passes.rewrite import order
from tvmpipe.passes.rewrite.order import REWRITES, Rewrite


def test_names_are_unique_and_each_place_has_a_reason() -> None:
    names = [rewrite.name for rewrite in REWRITES]
    assert len(set(names)) == len(names)
    assert all(rewrite.why for rewrite in REWRITES)


def test_modules_are_dumped_one_by_one(tmp_path: Path) -> None:
    driver.front(chain(2, 64), monitor=Monitor(driver.FRONT, dump=tmp_path))
    expected = [f"01-fuse-{number:02d}-{rewrite.name}.py" for number, rewrite in enumerate(REWRITES)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-import.py", *expected, "01-fuse.py"]
    assert "R.matmul(" in _dump(tmp_path, "evaluate_constants")
    assert "R.call_tir(cls.matmul" in _dump(tmp_path, "legalize_operators")
    assert "fused_matmul_tanh" in (tmp_path / "01-fuse.py").read_text()


def test_what_cannot_be_lowered_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: object) -> object:
        raise RuntimeError("no rule for this\nBlockBuilder destroyed with remaining blocks!")

    monkeypatch.setattr(order, "REWRITES", (Rewrite("broken", broken, "for the test"),))
    with pytest.raises(UnsupportedModelError, match=r"^TVM cannot lower chain: no rule for this$"):
        driver.front(chain(2, 64))


def _dump(folder: Path, rewrite: str) -> str:
    (path,) = folder.glob(f"01-fuse-*-{rewrite}.py")
    return path.read_text(encoding="utf-8")
