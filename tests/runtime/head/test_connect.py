"""How many samples travel together and at once, as users ask for it or the plan says it."""

from __future__ import annotations

import pytest

from tests.runtime import manifests
from tvmpipe.manifest import PlanEntry, Predicted
from tvmpipe.runtime.head.connect import default_batch, plan_settings
from tvmpipe.runtime.head.options import ConnectOptions, Limits


def plan(period_s: float, inflight: int, on_links: int = 0) -> PlanEntry:
    """A plan of one stage with these figures."""
    return manifests.plan([manifests.stage("s0", "a", [0], [1])]).model_copy(
        update={
            "predicted": Predicted(period_s=period_s, latency_s=4 * period_s),
            "inflight": inflight,
            "on_links": on_links,
        }
    )


@pytest.mark.parametrize(("period_s", "batch"), [(1.0, 1), (1.5e-3, 1), (0.5e-3, 3), (1e-6, 16), (0.0, 16)])
def test_the_shorter_a_period_the_more_samples_travel_together(period_s: float, batch: int) -> None:
    assert default_batch(period_s) == batch


@pytest.mark.parametrize(
    ("options", "samples", "batch", "batches"),
    [
        (ConnectOptions(), 4 * 3 + 2, 3, 5),  # those on links are single samples
        (ConnectOptions(batch=1), 4 + 2, 1, 6),
        (ConnectOptions(inflight=40), 40, 3, 14),
        (ConnectOptions(inflight=8), 8, 1, 8),  # fewer in a batch, so that every device has one
        (ConnectOptions(inflight=1), 1, 1, 1),
        (ConnectOptions(inflight=2, batch=4), 2, 4, 1),
    ],
)
def test_what_is_under_way(options: ConnectOptions, samples: int, batch: int, batches: int) -> None:
    found, settings = plan_settings(plan(0.5e-3, inflight=6, on_links=2), options)
    assert (found, settings.batch, settings.max_batches) == (samples, batch, batches)


def test_the_executor_is_told_what_the_user_asked_for() -> None:
    options = ConnectOptions(failover=True, limits=Limits(timeout_s=7.0, recover_s=9.0))
    _, settings = plan_settings(plan(1.0, inflight=3), options)
    assert (settings.failover, settings.timeout_s, settings.recover_s) == (True, 7.0, 9.0)
