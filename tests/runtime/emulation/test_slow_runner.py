"""An emulated device is as slow as it was told to be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tvmpipe.errors import DeviceError
from tvmpipe.runtime.emulation import slow_runner
from tvmpipe.runtime.emulation.options import Emulation
from tvmpipe.runtime.emulation.slow_runner import SlowStages, Stopwatch
from tvmpipe.runtime.emulation.speed_probe import ReferenceLoop
from tvmpipe.runtime.transport.sender import SocketSender


class Machine:
    """A machine whose clocks move only when it computes, `slower` times slower than usual."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.factor = 0.0, 1.0
        clock = SimpleNamespace(thread_time=lambda: self.now, process_time=lambda: self.now)
        monkeypatch.setattr(slow_runner, "time", SimpleNamespace(**vars(clock), perf_counter=lambda: self.now))

    def slower(self) -> float:
        """As `SpeedProbe` has it."""
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


class OneSecond:
    """A stage of one second; one sample it cannot compute, and at another its device fails."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.error: Exception | None = None

    def run(self, stage: str, batch: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        self.machine.now += 1.0
        if self.error is not None:
            raise self.error
        return list(inputs)


class Stopped:
    """As `threading.Event`, on the machine's clock."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def wait(self, seconds: float) -> bool:
        self.machine.now += seconds
        return False


def test_stages_take_longer_and_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's own time counts, whatever others take; what a sample raises comes as late as a result would."""
    machine = Machine(monkeypatch)
    one = OneSecond(machine)
    slow = SlowStages(one, 5.0, 1, Stopped(machine))  # type: ignore[arg-type]
    x = np.arange(3)
    assert slow.run("a", 0, [x])[0] is x
    assert machine.now == pytest.approx(5.0)
    one.error = RuntimeError("no such index")
    with pytest.raises(RuntimeError, match="no such index"):
        slow.run("a", 1, [x])
    assert machine.now == pytest.approx(10.0)
    one.error = DeviceError("lost")
    with pytest.raises(DeviceError, match="lost"):
        slow.run("b", 2, [x])
    assert machine.now == pytest.approx(11.0)


def test_nothing_is_wrapped_where_nothing_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = OneSecond(Machine(monkeypatch))
    sender = SocketSender({})
    plain = Emulation()
    assert plain.wrap_stages(stages, 1, threading.Event()) is stages
    assert plain.wrap_sender(sender) is sender
    assert isinstance(Emulation(2.0).wrap_stages(stages, 1, threading.Event()), SlowStages)
    assert Emulation(2.0).wrap_sender(sender) is sender


def test_what_a_head_is_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Numbers and a name: paths of a device are its own."""
    loop = ReferenceLoop("x86-64-v2", tmp_path / "loop.so", ((1, 2),), 0.001)
    assert Emulation(4.0, None, 0.0, loop).facts() == {
        "slowdown": 4.0,
        "bandwidth_bps": None,
        "latency_s": 0.0,
        "like": "x86-64-v2",
    }
    assert Emulation(2.0).facts()["like"] is None
