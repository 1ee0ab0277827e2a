"""An emulated device is as slow as it was told to be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tvmpipe.runtime.emulation import slow_device as emulation
from tvmpipe.runtime.emulation.slow_device import Emulation, Stopwatch
from tvmpipe.runtime.emulation.speed_probe import PaceLoop


class Machine:
    """A machine whose clocks move only when it computes, `slower` times slower than usual."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.factor = 0.0, 1.0
        clock = SimpleNamespace(thread_time=lambda: self.now, process_time=lambda: self.now)
        monkeypatch.setattr(emulation, "time", SimpleNamespace(**vars(clock), perf_counter=lambda: self.now))

    def slower(self) -> float:
        """As `Pace` has it."""
        return self.factor

    def stage(self, watch: Stopwatch, factor: float) -> float:
        """Compute a stage of one second; the seconds that it takes with the wait after it."""
        self.factor = factor
        watch.start()
        self.now += factor
        return factor + watch.remaining_s()


def test_slower_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What disturbs this machine for a while is not multiplied."""
    machine = Machine(monkeypatch)
    watch = Stopwatch(4.0, 1)
    assert [machine.stage(watch, factor) for factor in (1.0, 1.5, 3.0, 1.0)] == pytest.approx([4.0] * 4)
    # But a machine that stays slow is a slow one.
    assert [machine.stage(watch, 2.0) for _ in range(20)][-1] == pytest.approx(8.0)


def test_slower_than_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast this one is, for how long ever."""
    machine = Machine(monkeypatch)
    watch = Stopwatch(4.0, 1, machine)  # type: ignore[arg-type]
    factors = [1.0, 1.5, 3.0, 1.0, *[2.0] * 20, *[0.7] * 20]
    assert [machine.stage(watch, factor) for factor in factors] == pytest.approx([4.0] * len(factors))
    # Nothing can be done where this machine is too slow.
    assert machine.stage(watch, 5.0) == pytest.approx(5.0)


def test_what_a_head_is_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Numbers and a name: paths of a device are its own."""
    loop = PaceLoop("x86-64-v2", tmp_path / "pace.so", ((1, 2),), 0.001)
    assert Emulation(4.0, None, 0.0, loop).facts() == {
        "slowdown": 4.0,
        "bandwidth_bps": None,
        "latency_s": 0.0,
        "like": "x86-64-v2",
    }
    assert Emulation(2.0).facts()["like"] is None
