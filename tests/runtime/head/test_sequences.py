"""Sequences through a pipeline whose devices are threads: states stay there, whatever comes in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime import manifests
from tests.runtime.threads import ThreadPipeline, thread_pipeline
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.consistency import inconsistency
from tvmpipe.errors import DeviceError, QueueFullError, SampleError, SequenceError, StageError
from tvmpipe.manifest import Manifest, PlanEntry, StageTensor
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.tensors import TensorSpec

SHAPE = manifests.SHAPE
COUNT = 4


def recurrent(count: int = COUNT) -> Manifest:
    """h' = h / 2 + x on one device, g' = g + h' and y = g' + g on the next; and without each of three devices."""

    def plan(first: str, second: str, lost: str | None) -> PlanEntry:
        named = f"{lost or 'main'}-"
        stages = [
            manifests.stage(f"{named}h", first, [0, 10], [11, 1]),
            manifests.stage(f"{named}g", second, [1, 20], [21]),
            manifests.stage(f"{named}y", second, [21, 20], [3]),
        ]
        return manifests.plan(stages, lost)

    plans = [plan("a", "b", None), plan("c", "b", "a"), plan("a", "c", "b")]
    made = manifests.manifest(plans, {"x": 0, "h": 10, "g": 20}, {"y": 3, "h'": 11, "g'": 21})
    return manifests.in_steps(made, {"h": "h'", "g": "g'"}, count)


RECURRENT = recurrent()


def compute(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    kind = stage.split("-")[1]
    if kind == "h":
        if inputs[0].flat[0] == 13.0:
            raise ValueError("13 brings bad luck")
        made = inputs[1] / 2 + inputs[0]
        return [made, made]
    return [inputs[0] + inputs[1]]


def wanted(values: Sequence[float]) -> list[float]:
    """What y is at each step, in the same arithmetic."""
    h = g = np.zeros((), np.float32)
    found = []
    for x in values:
        h = h / np.float32(2) + np.float32(x)
        found.append(float((h + g) + g))
        g = h + g
    return found


def sample(value: float) -> dict[str, NDArray[Any]]:
    return {"x": np.full(SHAPE, value, np.float32)}


def value_of(result: dict[str, NDArray[Any]]) -> float:
    assert (result["y"] == result["y"].flat[0]).all()
    return float(result["y"].flat[0])


def pipeline_of(manifest: Manifest, settings: Settings, inflight: int = 8) -> Any:
    assert inconsistency(manifest.model_copy(update={"files": (manifests.FILE,)})) is None
    return thread_pipeline(manifest, settings, inflight)


@pytest.fixture
def threads() -> Iterator[ThreadPipeline]:
    with pipeline_of(RECURRENT, Settings(max_batches=8, recover_s=PATIENCE_S)) as threads:
        for device in threads.devices.values():
            device.compute = compute
        yield threads


def run_sequences(threads: ThreadPipeline, lengths: Sequence[int], then: Any = None) -> None:
    """A thread for each sequence, with several steps of each under way; asserts that all of them are right."""
    wrong: list[str] = []
    reached = threading.Barrier(len(lengths) + 1) if then is not None else None

    def work(number: int, length: int) -> None:
        values = [float(1 + (number * 7 + step) % 5) for step in range(length)]
        with threads.pipe.sequence() as sequence:
            found = []
            for place, result in enumerate(sequence.stream(map(sample, values))):
                found.append(value_of(result))
                if place == length // 2 and reached is not None:
                    reached.wait(PATIENCE_S)
            if found != wanted(values):
                wrong.append(f"sequence {number}: {found}")
            assert sequence.steps == length

    workers = [threading.Thread(target=work, args=pair) for pair in enumerate(lengths)]
    for worker in workers:
        worker.start()
    if reached is not None:
        reached.wait(PATIENCE_S)
        then()
    for worker in workers:
        worker.join(2 * PATIENCE_S)
        assert not worker.is_alive()
    assert not wrong, wrong


@pytest.mark.parametrize("batch", [1, 3])
def test_more_sequences_than_places_one_after_the_other_and_interleaved(batch: int) -> None:
    with pipeline_of(RECURRENT, Settings(batch=batch, max_batches=4), inflight=4 * batch) as threads:
        for device in threads.devices.values():
            device.compute = compute
        run_sequences(threads, [12, 1, 7, 12, 3, 9, 12, 2, 5])
        assert threads.pipe.sequences == ()


def test_states_that_are_lost_are_computed_again(threads: ThreadPipeline) -> None:
    """Without failover the device is waited for; it begins anew, as the others do."""

    def lose() -> None:
        threads.devices["b"].die()
        threads.devices["b"].there = True

    run_sequences(threads, [20, 14, 9, 17], lose)


def test_with_failover_other_devices_have_the_states_and_give_them_back() -> None:
    with pipeline_of(RECURRENT, Settings(batch=2, max_batches=4, failover=True, recover_s=PATIENCE_S)) as threads:
        for device in threads.devices.values():
            device.compute = compute
        with threads.pipe.sequence() as idle:
            assert value_of(idle.step(sample(2.0))) == wanted([2.0])[0]
            run_sequences(threads, [30, 24, 19], threads.devices["a"].die)
            assert "a" not in threads.pipe.devices
            threads.devices["a"].there = True
            values, found = [2.0], wanted([2.0])
            deadline = time.monotonic() + PATIENCE_S
            while "a" not in threads.pipe.devices and time.monotonic() < deadline:
                values.append(float(len(values) % 3))
                found.append(value_of(idle.step(sample(values[-1]))))
            values.append(1.0)
            found.append(value_of(idle.step(sample(1.0))))
            assert found == wanted(values)
            assert "a" in threads.pipe.devices


def test_a_step_that_raises_breaks_its_sequence_and_no_other(threads: ThreadPipeline) -> None:
    with threads.pipe.sequence() as bad, threads.pipe.sequence() as good:
        futures = [bad.submit(sample(value)) for value in (1.0, 2.0, 13.0, 1.0, 2.0)]
        others = [good.submit(sample(value)) for value in (1.0, 2.0, 3.0)]
        assert [value_of(one.result(PATIENCE_S)) for one in futures[:2]] == wanted([1.0, 2.0])
        with pytest.raises(StageError, match=r"sample 2 was not answered: stage main-h on device a raised: 13 brings"):
            futures[2].result(PATIENCE_S)
        for later in (*futures[3:], bad.submit(sample(1.0))):
            with pytest.raises(StageError, match="step 2 of its sequence failed: 13 brings bad luck"):
                later.result(PATIENCE_S)
        assert [value_of(one.result(PATIENCE_S)) for one in others] == wanted([1.0, 2.0, 3.0])
    with threads.pipe.sequence() as again:
        assert value_of(again.step(sample(1.0))) == wanted([1.0])[0]


def test_there_are_as_many_sequences_at_once_as_the_bundle_says(threads: ThreadPipeline) -> None:
    pipe = threads.pipe
    opened = [pipe.sequence() for _ in range(COUNT)]
    opened[1].step(sample(1.0))
    assert [(one.slot, one.steps) for one in pipe.sequences] == [(0, 0), (1, 1), (2, 0), (3, 0)]
    assert all(one.age_s < PATIENCE_S for one in pipe.sequences)
    with pytest.raises(QueueFullError, match="all 4 sequences that the bundle was compiled for are in use"):
        pipe.sequence(timeout_s=0.05)
    taken: list[int] = []
    waiter = threading.Thread(target=lambda: taken.append(pipe.sequence().slot))
    waiter.start()
    opened[1].close()
    waiter.join(PATIENCE_S)
    assert taken == [1]
    with pytest.raises(SequenceError, match="the sequence is closed"):
        opened[1].submit(sample(1.0))
    opened[1].close()


def test_steps_under_way_are_answered_when_their_sequence_is_closed(threads: ThreadPipeline) -> None:
    with threads.pipe.sequence() as sequence:
        futures = [sequence.submit(sample(1.0)) for _ in range(5)]
    assert [value_of(one.result(PATIENCE_S)) for one in futures] == wanted([1.0] * 5)


def test_what_a_model_with_states_cannot_do_is_said(threads: ThreadPipeline) -> None:
    pipe = threads.pipe
    for call in (pipe.submit, pipe.run, lambda one: list(pipe.stream([one]))):
        with pytest.raises(SequenceError, match="its samples are the steps of a sequence"):
            call(sample(1.0))
    with pipe.sequence() as sequence:
        for bad in ({"z": np.zeros(SHAPE)}, {**sample(1.0), "h": np.zeros(SHAPE, np.float32)}):
            with pytest.raises(SampleError, match="is not one of the model's; allowed: x"):
                sequence.step(bad)
        with pytest.raises(SequenceError, match=r"states all grow can be truncated \(h is replaced by each step\)"):
            sequence.truncate(0)
        assert (sequence.steps, sequence.length) == (0, 0)
    pipe.warm_up()
    assert pipe.sequences == ()
    with (
        thread_pipeline(manifests.chain("a"), Settings()) as plain,
        pytest.raises(SequenceError, match="keeps nothing"),
    ):
        plain.pipe.sequence()


def test_a_place_in_the_pipeline_is_waited_for_or_not() -> None:
    held = threading.Event()

    def slow(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        held.wait(PATIENCE_S)
        return compute(stage, inputs)

    with pipeline_of(RECURRENT, Settings(max_batches=2), inflight=2) as threads:
        for device in threads.devices.values():
            device.compute = slow
        with threads.pipe.sequence() as sequence:
            futures = [sequence.submit(sample(1.0)) for _ in range(2)]
            with pytest.raises(QueueFullError):
                sequence.submit(sample(5.0), block=False)
            assert sequence.steps == 2
            held.set()
            results = [value_of(one.result(PATIENCE_S)) for one in futures]
            assert [*results, value_of(sequence.step(sample(1.0)))] == wanted([1.0] * 3)


def test_who_waits_for_a_sequence_hears_that_the_pipeline_is_closed() -> None:
    with pipeline_of(recurrent(1), Settings()) as threads:
        heard: list[str] = []

        def wait() -> None:
            try:
                threads.pipe.sequence()
            except DeviceError as error:
                heard.append(str(error))

        held = threads.pipe.sequence()
        waiter = threading.Thread(target=wait)
        waiter.start()
        threads.pipe.close()
        waiter.join(PATIENCE_S)
        assert heard == ["the pipeline is closed"]
        held.close()


ROWS = 8


def growing() -> Manifest:
    """Buckets of two rows and of one: a cache of eight rows, written where the length says, and its sum so far."""
    cache = manifests.tensor(10, "cache").spec.model_copy(update={"shape": (ROWS, 3)})
    length = manifests.tensor(5, "length").spec.model_copy(update={"shape": (1,), "dtype": "int64"})
    one = manifests.manifest(
        [
            manifests.plan(
                [manifests.stage("main-write", "a", [0, 5, 10], [11, 1]), manifests.stage("main-y", "b", [1], [3])]
            )
        ],
        {"x": 0, "length": 5, "cache": 10},
        {"y": 3, "cache'": 11},
    )
    made = manifests.in_buckets(one, (2, 1), {})
    specs = {"cache": cache, "length": length, "cache'": cache}
    ids = {value + manifests.IDS * n: spec for n in (0, 1) for value, spec in ((10, cache), (11, cache), (5, length))}

    def fixed(value: Any) -> Any:
        """The same with the specs above in the place of those of the same name, or id."""
        if isinstance(value, StageTensor):
            return value.model_copy(update={"spec": ids.get(value.value, value.spec)})
        if isinstance(value, TensorSpec):
            return specs.get(value.name, value).model_copy(update={"name": value.name})
        if isinstance(value, tuple):
            return tuple(map(fixed, value))
        if hasattr(value, "model_fields_set"):
            return value.model_copy(update={name: fixed(getattr(value, name)) for name in type(value).model_fields})
        return value

    opened = made.open
    assert opened is not None
    axes = {"x": ("rows", ""), "y": ("rows", "")}
    made = fixed(made.model_copy(update={"open": opened.model_copy(update={"axes": axes})}))
    return manifests.in_steps(made, {"cache": "cache'"}, COUNT, "length", ROWS, (2, 1))


def write(stage: str, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    if stage.endswith("y"):
        return [inputs[0]]
    x, length, cache = inputs
    at = int(length[0])
    made = cache.copy()
    made[at : at + len(x)] = x
    return [made, np.full_like(x, made[: at + len(x)].sum())]


def rows(*values: float) -> dict[str, NDArray[Any]]:
    return {"x": np.array([[value, 0, 0] for value in values], np.float32)}


def test_states_that_grow_have_a_length_and_can_be_cut_back() -> None:
    with pipeline_of(growing(), Settings(max_batches=4, recover_s=PATIENCE_S)) as threads:
        for device in threads.devices.values():
            device.compute = write
        with threads.pipe.sequence() as sequence:
            assert value_of(sequence.step(rows(1, 2))) == 3
            assert value_of(sequence.step(rows(3))) == 6
            assert value_of(sequence.step(rows(4, 5))) == 15
            assert (sequence.length, sequence.steps) == (5, 3)
            sequence.truncate(2)
            assert value_of(sequence.step(rows(7))) == 10
            threads.devices["a"].die()
            threads.devices["a"].there = True
            assert value_of(sequence.step(rows(1, 1))) == 12
            assert value_of(sequence.step(rows(1, 1))) == 14
            assert sequence.length == 7
            with pytest.raises(
                SequenceError, match="has 7 elements and a step adds 2 to them: the model keeps at most 8"
            ):
                sequence.step(rows(1, 1))
            assert value_of(sequence.step(rows(1))) == 15
            with pytest.raises(SequenceError, match="the sequence has 8 elements, of which 9 cannot be kept"):
                sequence.truncate(9)
            sequence.truncate(0)
            assert value_of(sequence.step(rows(5))) == 5
            with pytest.raises(SampleError, match="'length' is not one of the model's; allowed: x"):
                sequence.step({**rows(1), "length": np.zeros(1, np.int64)})


def test_who_waits_for_a_step_of_a_pipeline_that_failed_hears_why() -> None:
    with pipeline_of(RECURRENT, Settings(max_batches=4, recover_s=0.0)) as threads:
        for device in threads.devices.values():
            device.compute = compute
        with threads.pipe.sequence() as sequence:
            sequence.step(sample(1.0))
            threads.devices["b"].die()
            with pytest.raises(DeviceError, match="device b was lost"):
                for _ in range(100):
                    sequence.step(sample(1.0))
        wait_until(lambda: _fails(threads))


def _fails(threads: ThreadPipeline) -> bool:
    with pytest.raises(DeviceError, match="device b was lost"):
        threads.pipe.sequence()
    return True
