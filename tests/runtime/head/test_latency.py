"""Small tensors over links of long latency, planned and then run: latencies overlap, as the plan counts on."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import tvmpipe
from tests.models import chain
from tvmpipe.build import build
from tvmpipe.commands.run import measure_stream
from tvmpipe.commands.samples import random_samples
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.head.pipeline import Pipeline
from tvmpipe.targets.description.cluster import parse_cluster

LATENCY_S = 20e-3
BUSY_S = 1e-3  # a tensor of 4 KiB at 4 MB/s
CLUSTER = """
[[device]]
name = "near"
threads = 1
[[device]]
name = "far"
threads = 1
[[link]]
between = ["head", "near"]
bandwidth = "1GB/s"
latency = "0.1ms"
[network]
bandwidth = "4MB/s"
latency = "20ms"
"""


def measure(pipe: Pipeline, samples: list[Any]) -> dict[str, Any]:
    return measure_stream(pipe, samples, len(samples), "running", lambda _: None)


def test_a_plan_over_far_links_has_its_period(tmp_path: Path) -> None:
    """The head's own messages are not delayed; the devices' are, and theirs are two of each sample's three ways."""
    pins = {"000*": "near", "001*": "far"}
    bundle = build(chain(2, 256), parse_cluster(CLUSTER), pins=pins)
    plan = bundle.manifest.plan
    assert plan.devices == ("near", "far")
    assert BUSY_S < plan.predicted.period_s < 1.5 * BUSY_S
    assert 2 * LATENCY_S < plan.predicted.latency_s < 3 * LATENCY_S
    assert 2 * LATENCY_S / plan.predicted.period_s <= plan.inflight
    options = ("--bandwidth", "4MB/s", "--latency", "20ms")
    samples = random_samples(bundle.manifest, 20, seed=1) * 30
    with local_cluster([LocalAgent(name, options=options) for name in plan.devices], store=tmp_path) as cluster:
        with tvmpipe.connect(bundle, cluster.tracker) as pipe:
            assert pipe.inflight >= plan.inflight
            pipe.warm_up()
            alone = [measure(pipe, samples[:1])["seconds"] for _ in range(3)]
            full = measure(pipe, samples)
        with tvmpipe.connect(bundle, cluster.tracker, inflight=4, batch=1) as pipe:
            pipe.warm_up()
            few = measure(pipe, samples[:100])
    assert plan.predicted.latency_s * 0.9 < statistics.median(alone) < 3 * plan.predicted.latency_s
    assert plan.predicted.period_s / 3 < full["period_s"] < 3 * plan.predicted.period_s
    expected_s = plan.predicted.period_with_s(4)
    assert expected_s > 8 * plan.predicted.period_s
    assert expected_s / 1.5 < few["period_s"] < 3 * expected_s
