"""The executor without devices: order, limits, errors."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models import branchy
from tvmpipe.bundle import Bundle
from tvmpipe.commands.run import random_samples
from tvmpipe.errors import DeviceError, DeviceLostError, QueueFullError, SampleError
from tvmpipe.manifest import DeviceEntry, StageEntry
from tvmpipe.reference import Reference, relative_error
from tvmpipe.runtime.inprocess import run_in_process
from tvmpipe.runtime.pipeline import Pipeline
from tvmpipe.runtime.session import StageTimes


class SlowSession:
    """A device that passes its first input on after a while, or fails when told to."""

    def __init__(self, device: DeviceEntry, delay_s: float, gate: threading.Event | None = None) -> None:
        self.device = device
        self.agent: dict[str, Any] | None = None
        self.delay_s = delay_s
        self.gate = gate
        self.fail_at: int | None = None

    def load(self, bundle: Bundle, stages: list[StageEntry]) -> int:
        return 0

    def run(self, stage: str, sample: int, inputs: list[NDArray[Any]]) -> tuple[list[NDArray[Any]], StageTimes]:
        if self.gate is not None:
            self.gate.wait()
        if sample == self.fail_at:
            raise DeviceLostError("gone", device=self.device.name, stage=stage, sample=sample)
        time.sleep(self.delay_s * (1 + sample % 3))
        return [inputs[0] + 1], StageTimes(0, 0, 0)

    def close(self) -> None:
        if self.gate is not None:
            self.gate.set()


def pipeline(bundle: Bundle, inflight: int, delay_s: float = 0.0, gate: threading.Event | None = None) -> Pipeline:
    sessions = {d.name: SlowSession(d, delay_s, gate) for d in bundle.manifest.devices}
    return Pipeline(bundle.manifest, sessions, inflight)


def numbered(count: int) -> list[dict[str, NDArray[Any]]]:
    return [{"x": np.full((4, 256), i, np.float32)} for i in range(count)]


def test_results_come_in_order(chain_bundle: Bundle) -> None:
    with pipeline(chain_bundle, inflight=5, delay_s=0.002) as pipe:
        results = [float(result["y"][0, 0]) for result in pipe.stream(numbered(30))]
    assert results == [i + 3.0 for i in range(30)]
    assert {count.samples for count in pipe.counts.values()} == {30}


def test_stages_work_at_the_same_time(chain_bundle: Bundle) -> None:
    """Each device waits until all three are at work, on three samples: only a pipeline gets past that."""
    together = threading.Barrier(3, timeout=10)
    with pipeline(chain_bundle, inflight=6) as pipe:
        for name, session in pipe.sessions.items():
            passed_on = session.run

            position = list(pipe.sessions).index(name)

            def meet(stage, sample, inputs, passed_on=passed_on, position=position):  # type: ignore[no-untyped-def]
                if 2 <= sample + position <= 9:  # while the pipeline is full
                    together.wait()
                return passed_on(stage, sample, inputs)

            session.run = meet  # type: ignore[method-assign]
        assert len(list(pipe.stream(numbered(10)))) == 10


def test_no_more_in_flight_than_allowed(chain_bundle: Bundle) -> None:
    gate = threading.Event()
    with pipeline(chain_bundle, inflight=2, gate=gate) as pipe:
        futures = [pipe.submit(sample, block=False) for sample in numbered(2)]
        with pytest.raises(QueueFullError, match="2 samples are in flight"):
            pipe.submit(numbered(1)[0], block=False)
        gate.set()
        assert [float(f.result(5)["y"][0, 0]) for f in futures] == [3.0, 4.0]
        pipe.submit(numbered(1)[0], block=False).result(5)


def test_a_lost_device_fails_what_is_in_flight_and_what_comes(chain_bundle: Bundle) -> None:
    with pipeline(chain_bundle, inflight=4, delay_s=0.002) as pipe:
        pipe.sessions["beta"].fail_at = 7  # type: ignore[attr-defined]
        results = pipe.stream(numbered(30))
        good = []
        with pytest.raises(DeviceLostError) as caught:
            for result in results:
                good.append(float(result["y"][0, 0]))
        assert good == [i + 3.0 for i in range(len(good))]
        assert len(good) <= 7
        assert (caught.value.device, caught.value.stage, caught.value.sample) == ("beta", "s1", 7)
        with pytest.raises(DeviceLostError):
            pipe.submit(numbered(1)[0])


def test_a_stage_that_breaks_its_promise_fails_the_sample(chain_bundle: Bundle) -> None:
    with pipeline(chain_bundle, inflight=2) as pipe:
        pipe.sessions["beta"].run = lambda *_: ([], StageTimes(0, 0, 0))  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="zip"):
            pipe.submit(numbered(1)[0]).result(5)


def test_closing_fails_what_is_in_flight(chain_bundle: Bundle) -> None:
    gate = threading.Event()
    pipe = pipeline(chain_bundle, inflight=2, gate=gate)
    future = pipe.submit(numbered(1)[0])
    pipe.close()
    pipe.close()
    with pytest.raises(DeviceError, match="closed before the sample was done"):
        future.result(5)
    with pytest.raises(DeviceError):
        pipe.submit(numbered(1)[0])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"z": np.zeros(1)}, "input 'z' is not one of the model's; allowed: image, ids"),
        ({"image": np.zeros((1, 3, 16, 16), np.float32)}, "input 'ids' is missing"),
        (
            {"image": np.zeros((1, 3, 16, 16)), "ids": np.zeros((1, 4), np.int64)},
            "input 'image' has dtype float64; the model takes float32",
        ),
        (
            {"image": np.zeros((1, 3, 16, 17), np.float32), "ids": np.zeros((1, 4), np.int64)},
            r"input 'image' has shape \[1, 3, 16, 17\]; the model takes \[1, 3, 16, 16\]",
        ),
    ],
)
def test_wrong_samples(branchy_bundle: Bundle, sample: dict[str, NDArray[Any]], message: str) -> None:
    with run_in_process(branchy_bundle) as pipe:
        with pytest.raises(SampleError, match=message):
            pipe.submit(sample)
        # A refused sample takes no place in the pipeline.
        good = random_samples(branchy_bundle.manifest, 20, seed=0)
        assert len(list(pipe.stream(good))) == 20


def test_several_threads_submit(branchy_bundle: Bundle) -> None:
    reference = Reference(branchy().SerializeToString())
    samples = random_samples(branchy_bundle.manifest, 24, seed=3)
    errors: list[float] = []

    def work(part: list[dict[str, NDArray[Any]]]) -> None:
        for sample in part:
            errors.append(relative_error(pipe.run(sample), reference.run(sample)))

    with run_in_process(branchy_bundle) as pipe:
        threads = [threading.Thread(target=work, args=(samples[i::3],)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(errors) == 24
    assert max(errors) < 1e-4


def test_lookups_outside_their_table_do_no_harm(branchy_bundle: Bundle) -> None:
    """ONNX calls it an error; a compiled kernel must at least not read somebody else's memory."""
    sample = random_samples(branchy_bundle.manifest, 1, seed=0)[0]
    sample["ids"] = np.array([[2**40, -(2**40), 9, 10]], dtype=np.int64)
    with run_in_process(branchy_bundle) as pipe:
        assert np.isfinite(pipe.run(sample)["scores"]).all()
