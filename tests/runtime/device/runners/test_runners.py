"""Which runner a stage gets, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device import runners
from tvmpipe.runtime.device.runners import RunnerModule, available_runners, load_stage


def test_a_code_generator_that_nobody_knows(chain_bundle: Bundle) -> None:
    stage = chain_bundle.manifest.plan.stages[0].model_copy(update={"codegen": "fpga"})
    with pytest.raises(DeviceError, match="stage s0 was compiled by the code generator 'fpga'; known are llvm"):
        load_stage(stage, Path("nowhere"), {})


def test_runners_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "llvm" in available_runners()
    monkeypatch.setitem(runners.RUNNERS, "npu", RunnerModule("tvmpipe.runtime.device.runners.npu", "no_such_package"))
    assert "npu" not in available_runners()
