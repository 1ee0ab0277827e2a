"""The executor over devices that are threads: whose error is whose, who may wait, whom a buffer belongs to."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime import manifests
from tests.runtime.fakes import unused_port
from tests.runtime.threads import ThreadPipeline, add_one, thread_pipeline
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.errors import DeviceError, DeviceLostError, SampleError, StageError
from tvmpipe.runtime.head.event_log import EventLog
from tvmpipe.runtime.head.sample import Result
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.transport.sockets import Sockets

CHAIN = manifests.chain("a", "b", "c")
SHAPE = manifests.SHAPE


def sample(value: float) -> Result:
    return {"x": np.full(SHAPE, value, np.float32)}


def value_of(result: Result) -> float:
    assert (result["y"] == result["y"].flat[0]).all()
    return float(result["y"].flat[0])


@pytest.fixture
def threads() -> Iterator[ThreadPipeline]:
    """A chain of three devices, each of which adds one."""
    with thread_pipeline(CHAIN, Settings(max_batches=4, recover_s=PATIENCE_S)) as threads:
        yield threads


@pytest.fixture
def spared() -> Iterator[ThreadPipeline]:
    """The same with failover."""
    settings = Settings(max_batches=4, failover=True, recover_s=PATIENCE_S)
    with thread_pipeline(CHAIN, settings) as threads:
        yield threads


def slowly(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    time.sleep(0.02)
    return add_one(stage, inputs)


def test_a_submitted_buffer_is_the_callers_again_at_once(threads: ThreadPipeline) -> None:
    threads.devices["a"].compute = slowly
    buffer = np.zeros(SHAPE, np.float32)
    futures = []
    for number in range(30):
        buffer[:] = number
        futures.append(threads.pipe.submit({"x": buffer}))
        buffer[:] = -1
    assert [value_of(future.result(PATIENCE_S)) for future in futures] == [number + 3 for number in range(30)]


def test_a_stream_may_refill_one_array(threads: ThreadPipeline) -> None:
    buffer = np.zeros(SHAPE, np.float32)

    def refilled() -> Iterator[dict[str, NDArray[Any]]]:
        for number in range(50):
            buffer[:] = number
            yield {"x": buffer}

    assert [value_of(result) for result in threads.pipe.stream(refilled())] == [number + 3 for number in range(50)]


def test_large_buffers_that_are_not_copied_are_sent_as_they_are() -> None:
    with thread_pipeline(CHAIN, Settings()) as threads:
        given = sample(1.0)
        assert value_of(threads.pipe.submit(given, copy=False).result(PATIENCE_S)) == 4.0
        assert [value_of(one) for one in threads.pipe.stream([given, given], copy=False)] == [4.0, 4.0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_of_both_byte_orders_are_the_same_numbers(threads: ThreadPipeline, order: str) -> None:
    given = np.arange(6, dtype=f"{order}f4").reshape(SHAPE)
    np.testing.assert_array_equal(threads.pipe.run({"x": given})["y"], np.arange(6).reshape(SHAPE) + 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "a sample is a mapping of input names to arrays, not None; the model takes x"),
        (np.zeros(SHAPE, np.float32), "a sample is a mapping of input names to arrays, not a ndarray"),
        ([1], "not a list"),
        ({"x": None}, "input 'x' has dtype object; the model takes float32"),
        ({"x": [[1], [1, 2]]}, "input 'x' is no array: "),
        ({3: np.zeros(SHAPE)}, "input 3 is not one of the model's; allowed: x"),
    ],
)
def test_what_is_no_sample_is_refused_and_harms_nobody(threads: ThreadPipeline, given: Any, message: str) -> None:
    for call in (threads.pipe.submit, threads.pipe.run, lambda one: list(threads.pipe.stream([one]))):
        with pytest.raises(SampleError, match=message):
            call(given)
    assert value_of(threads.pipe.run(sample(1))) == 4.0


def picky(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Raises for samples that reach it as 13 or 14."""
    if inputs[0].flat[0] in (13.0, 14.0):
        raise ValueError("a traceback\n\n  13 and 14 bring bad luck")
    return add_one(stage, inputs)


@pytest.mark.parametrize("batch", [1, 4])
def test_what_a_stage_raises_is_that_samples(batch: int) -> None:
    """Others of its batch are answered, and nothing is opened anew."""
    with thread_pipeline(CHAIN, Settings(batch=batch, max_batches=4), inflight=16) as threads:
        threads.devices["b"].compute = picky
        futures = [threads.pipe.submit(sample(number)) for number in range(40)]
        for number, future in enumerate(futures):
            if number in (12, 13):
                with pytest.raises(StageError, match=f"sample {number} was not answered: stage main-s1 on device b "):
                    future.result(PATIENCE_S)
            else:
                assert value_of(future.result(PATIENCE_S)) == number + 3
        assert len(threads.deployer.sessions) == 1


def test_with_failover_a_raising_device_is_done_without(spared: ThreadPipeline) -> None:
    """It may be the device that is broken: another one computes what it could not."""

    def broken(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        raise RuntimeError("out of memory")

    spared.devices["b"].compute = broken
    assert value_of(spared.pipe.run(sample(1))) == 3.0, "the plan without b has two stages"


def test_with_failover_a_sample_that_all_raise_for_fails_alone(spared: ThreadPipeline) -> None:
    for device in spared.devices.values():
        device.compute = picky
    assert value_of(spared.pipe.run(sample(1))) == 4.0
    with pytest.raises(StageError, match="13 and 14 bring bad luck"):
        spared.pipe.run(sample(13))
    assert value_of(spared.pipe.run(sample(1))) in (3.0, 4.0)


def test_a_device_that_is_back_is_made_ready_beside_what_runs(spared: ThreadPipeline) -> None:
    spared.devices["b"].die()
    assert value_of(spared.pipe.run(sample(1))) == 3.0
    before = spared.deployer.prepared
    spared.devices["b"].there = True
    deadline = time.monotonic() + PATIENCE_S
    values: list[float] = []
    while not values or values[-1] != 4.0:
        assert time.monotonic() < deadline
        values.append(value_of(spared.pipe.run(sample(1))))
    assert set(values) == {3.0, 4.0}
    assert spared.deployer.prepared == before + 1


def test_without_failover_a_device_may_come_back(threads: ThreadPipeline) -> None:
    threads.devices["a"].compute = slowly
    futures = [threads.pipe.submit(sample(number)) for number in range(4)]
    threads.devices["b"].die()
    time.sleep(0.3)
    threads.devices["b"].there = True
    assert [value_of(future.result(PATIENCE_S)) for future in futures] == [3.0, 4.0, 5.0, 6.0]


def test_without_patience_a_loss_is_final() -> None:
    with thread_pipeline(CHAIN, Settings(recover_s=0.0)) as threads:
        threads.pipe.run(sample(1))
        threads.devices["b"].die()
        with pytest.raises(DeviceLostError, match="device b was lost"):
            for _ in range(100):
                threads.pipe.run(sample(1))


def test_callbacks_may_wait_for_other_results(threads: ThreadPipeline) -> None:
    """Each for the next, so that none is done before the last."""
    done: list[float] = []

    def follow(future: Future[Result]) -> None:
        value = value_of(future.result())
        if value < 30:
            threads.pipe.submit({"x": np.full(SHAPE, value, np.float32)}).add_done_callback(follow)
            done.append(value_of(threads.pipe.run(sample(value))))

    threads.pipe.submit(sample(0)).add_done_callback(follow)
    wait_until(lambda: len(done) == 9)
    assert max(done) == 30


def test_a_callback_that_takes_long_loses_nothing(threads: ThreadPipeline) -> None:
    """Longer than a device may be silent."""
    over = threading.Event()
    threads.pipe.submit(sample(0)).add_done_callback(lambda _: over.wait(PATIENCE_S))
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert value_of(threads.pipe.run(sample(2))) == 5.0
    over.set()


def test_a_callback_that_raises_is_told_and_no_more(threads: ThreadPipeline, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Future[Result]) -> None:
        raise ValueError("on purpose")

    future = threads.pipe.submit(sample(0))
    future.add_done_callback(fail)
    assert value_of(future.result(PATIENCE_S)) == 3.0
    wait_until(lambda: any("exception calling callback" in record.message for record in caplog.records))
    assert value_of(threads.pipe.run(sample(0))) == 3.0


def test_callbacks_of_a_result_that_is_there_run_at_once(threads: ThreadPipeline) -> None:
    future = threads.pipe.submit(sample(0))
    future.result(PATIENCE_S)
    here: list[int] = []
    future.add_done_callback(lambda _: here.append(threading.get_ident()))
    assert here == [threading.get_ident()]


def test_a_forked_process_gets_an_error_and_ends_nothing(threads: ThreadPipeline) -> None:
    future = threads.pipe.submit(sample(1))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = []
        for call in (lambda: threads.pipe.run(sample(1)), lambda: threads.pipe.submit(sample(1))):
            try:
                call()
            except DeviceError as error:
                told.append(str(error))
        threads.pipe.close()
        os.write(write, "\n".join(told).encode())
        os._exit(0)
    os.close(write)
    try:
        assert select.select([read], [], [], PATIENCE_S)[0], "the child waits for ever"
        lines = os.read(read, 65536).decode().splitlines()
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(lines) == 2
    assert all(line.startswith(f"this pipeline belongs to process {os.getpid()}") for line in lines)
    assert value_of(future.result(PATIENCE_S)) == 4.0
    assert value_of(threads.pipe.run(sample(2))) == 5.0


def test_a_crash_of_the_head_fails_all_that_wait_and_all_that_come(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours: nobody may wait for ever."""
    with thread_pipeline(CHAIN, Settings(max_batches=4)) as threads:
        over = threading.Event()

        def waiting(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            over.wait(PATIENCE_S)
            return add_one(stage, inputs)

        threads.devices["a"].compute = waiting
        first = threads.pipe.submit(sample(1))

        def broken(*_: Any) -> None:
            raise ZeroDivisionError("on purpose")

        monkeypatch.setattr(threads.pipe._head._state_machine, "handle", broken)
        with pytest.raises(DeviceError, match="the head failed: on purpose"):
            first.result(PATIENCE_S)
        with pytest.raises(DeviceError, match="the head failed: on purpose"):
            threads.pipe.run(sample(1))
        over.set()


def test_a_head_that_crashes_at_once_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr("tvmpipe.runtime.head.state_machine.StateMachine.start", broken)
    with (
        pytest.raises(DeviceError, match="the head failed: on purpose"),
        thread_pipeline(CHAIN, Settings()),
    ):
        pass


def test_a_log_that_cannot_be_written_ends_the_log_alone(
    threads: ThreadPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    threads.pipe._head._log = EventLog(open("/dev/full", "w"))  # noqa: SIM115  # the head closes it
    threads.devices["b"].die()
    wait_until(lambda: any("the event log ends here" in record.message for record in caplog.records))
    threads.devices["b"].there = True
    assert value_of(threads.pipe.run(sample(0))) == 3.0


def test_a_link_that_is_never_made_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall, say: everything can be reached from here, but one device cannot reach another."""
    monkeypatch.setattr("tvmpipe.runtime.transport.deadlines.LINK_S", 1.0)
    push = Sockets.push

    def cut(self: Sockets, address: tuple[str, int], **options: Any) -> Any:
        blocked = threading.current_thread().name == "tvmpipe-thread-a"
        return push(self, ("127.0.0.1", unused_port()) if blocked else address, **options)

    monkeypatch.setattr(Sockets, "push", cut)
    with thread_pipeline(CHAIN, Settings(recover_s=0.0)) as threads:
        message = "device b was lost, stage main-s1: the link from a to b broke or could not be made"
        with pytest.raises(DeviceLostError, match=message):
            threads.pipe.run(sample(1))
