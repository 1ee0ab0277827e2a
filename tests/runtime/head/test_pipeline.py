"""The pipeline as users hold it, over agents: order, limits, errors, batches, asynchrony, traces."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tvmpipe
from tests.models import branchy, chain
from tests.waiting import wait_until
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.equality import Comparison, worst
from tvmpipe.errors import DeviceError, QueueFullError, SampleError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head import instructions as do
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.state_machine import replay

ONES = {"x": np.ones((4, 256), np.float32)}


@pytest.mark.parametrize("batch", [1, 3])
def test_results_come_in_order(chain_bundle: Bundle, agents: LocalCluster, batch: int) -> None:
    reference = Reference(chain().SerializeToString())
    samples = random_samples(chain_bundle.manifest, 50, seed=1)
    with tvmpipe.connect(chain_bundle, agents.tracker, batch=batch) as pipe:
        pipe.warm_up()
        results = list(pipe.stream(samples))
        counts = pipe.counts()
    assert worst(reference.compare(r, s) for r, s in zip(results, samples, strict=True)).equal
    assert {count.samples for count in counts.values()} == {50}
    assert all(sum(count.histogram) == 50 for count in counts.values())


def test_no_more_in_flight_than_allowed(chain_bundle: Bundle, tmp_path: Path) -> None:
    slow = [LocalAgent(key, options=("--latency", "200ms")) for key in ("alpha", "beta", "gamma")]
    with (
        local_cluster(slow, store=tmp_path) as cluster,
        tvmpipe.connect(chain_bundle, cluster.tracker, inflight=2) as pipe,
    ):
        assert pipe.emulated == ("alpha", "beta", "gamma")
        first = [pipe.submit(ONES, block=False) for _ in range(2)]
        with pytest.raises(QueueFullError, match="2 samples are in flight"):
            pipe.submit(ONES, block=False)
        with pytest.raises(QueueFullError):
            pipe.submit(ONES, timeout_s=0.05)
        third = pipe.submit(ONES)
        assert first[0].done() or first[1].done()
        results = [future.result(10) for future in (*first, third)]
    for result in results[1:]:
        np.testing.assert_array_equal(result["y"], results[0]["y"])


def test_closing_fails_what_is_in_flight(chain_bundle: Bundle, tmp_path: Path) -> None:
    slow = [LocalAgent("alpha"), LocalAgent("beta", options=("--latency", "1s")), LocalAgent("gamma")]
    with local_cluster(slow, store=tmp_path) as cluster:
        pipe = tvmpipe.connect(chain_bundle, cluster.tracker)
        future = pipe.submit(ONES)
        pipe.close()
        pipe.close()
        with pytest.raises(DeviceError, match="closed before the sample was done"):
            future.result(5)
        with pytest.raises(DeviceError, match="the pipeline is closed"):
            pipe.submit(ONES)


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
def test_wrong_samples(
    branchy_bundle: Bundle, branchy_pipe: Any, sample: dict[str, NDArray[Any]], message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        branchy_pipe.submit(sample)
    # A refused sample takes no place in the pipeline.
    assert len(list(branchy_pipe.stream(random_samples(branchy_bundle.manifest, 20, seed=0)))) == 20


@pytest.fixture
def branchy_pipe(branchy_bundle: Bundle, agents: LocalCluster) -> Any:
    with tvmpipe.connect(branchy_bundle, agents.tracker) as pipe:
        yield pipe


def test_several_threads_submit(branchy_bundle: Bundle, branchy_pipe: Any) -> None:
    reference = Reference(branchy().SerializeToString())
    samples = random_samples(branchy_bundle.manifest, 24, seed=3)
    found: list[Comparison] = []

    def work(part: list[dict[str, NDArray[Any]]]) -> None:
        for sample in part:
            found.append(reference.compare(branchy_pipe.run(sample), sample))

    threads = [threading.Thread(target=work, args=(samples[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    assert worst(found).equal


def test_lookups_outside_their_table_do_no_harm(branchy_bundle: Bundle, branchy_pipe: Any) -> None:
    """ONNX calls it an error; a compiled kernel must at least not read somebody else's memory."""
    sample = random_samples(branchy_bundle.manifest, 1, seed=0)[0]
    sample["ids"] = np.array([[2**40, -(2**40), 9, 10]], dtype=np.int64)
    assert np.isfinite(branchy_pipe.run(sample)["scores"]).all()


def test_asynchronous_callers(branchy_bundle: Bundle, branchy_pipe: Any) -> None:
    reference = Reference(branchy().SerializeToString())
    samples = random_samples(branchy_bundle.manifest, 30, seed=4)

    async def one_by_one() -> AsyncIterator[dict[str, NDArray[Any]]]:
        for sample in samples:
            await asyncio.sleep(0)
            yield sample

    async def work() -> list[dict[str, NDArray[Any]]]:
        many = asyncio.gather(*(branchy_pipe.run_async(sample) for sample in samples))
        streamed = [result async for result in branchy_pipe.stream_async(one_by_one())]
        for result, again in zip(streamed, await many, strict=True):
            np.testing.assert_array_equal(result["scores"], again["scores"])
        return streamed

    results = asyncio.run(work())
    assert worst(reference.compare(r, s) for r, s in zip(results, samples, strict=True)).equal


def test_times_of_a_trace_are_the_heads(chain_bundle: Bundle, agents: LocalCluster) -> None:
    """A stage begins a batch after the one before has ended it, on whatever machine.

    Within 2 ms, as soon as a message between each device and the head has been that fast both ways.
    """
    first, second, _ = (stage.name for stage in chain_bundle.manifest.plan.stages)
    with tvmpipe.connect(chain_bundle, agents.tracker, trace=True, inflight=3) as pipe:
        done = 0

        def ahead_us() -> float:
            """How long the second stage seemed to begin before the first had ended, at most, of ten batches."""
            nonlocal done
            list(pipe.stream([ONES] * 10))
            spans = {event["name"]: event for event in pipe.trace() if event.get("cat") == "compute"}
            batches = range(done, done + 10)
            done += 10
            ends = (spans[f"{first} #{batch}"]["ts"] + spans[f"{first} #{batch}"]["dur"] for batch in batches)
            return float(max(end - spans[f"{second} #{batch}"]["ts"] for end, batch in zip(ends, batches, strict=True)))

        wait_until(lambda: ahead_us() < 2000)


def test_a_run_can_be_traced_and_replayed(chain_bundle: Bundle, agents: LocalCluster, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with tvmpipe.connect(chain_bundle, agents.tracker, trace=True, event_log=log, inflight=3) as pipe:
        list(pipe.stream([ONES] * 10))
        trace = pipe.trace()
    spans = [event for event in trace if event["ph"] == "X"]
    assert {event["cat"] for event in spans} == {"receive", "compute", "send"}
    assert len([event for event in spans if event["cat"] == "compute"]) == 30
    names = {event["args"]["name"] for event in trace if event["name"] == "process_name"}
    assert names == {"alpha", "beta", "gamma"}
    json.dumps(trace)

    happened = [events.from_line(line) for line in log.read_text().splitlines()]
    decided = replay(chain_bundle.manifest, Settings(max_batches=3), happened)
    answered = [one.sample for instructions in decided for one in instructions if isinstance(one, do.Answer)]
    assert sorted(answered) == list(range(10))


def test_failover_without_a_plan_for_it_waits_and_says_so(
    chain_bundle: Bundle, agents: LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    with tvmpipe.connect(chain_bundle, agents.tracker, failover=True, recover_s=7) as pipe:
        pipe.run(ONES)
    assert "a device that is lost is waited for, at most 7 s" in caplog.text
