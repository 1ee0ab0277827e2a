"""Bookkeeping of one device: what can run when, who is sent what, what is kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.manifest import HEAD, Manifest
from tvmpipe.runtime.router import Router, Task
from tvmpipe.runtime.spec import receivers_of


def diamond() -> Manifest:
    """x -> a1 -> (b1, c1) -> a2 -> y, where b1 also gives a result and a2 reads x again."""
    stages = [
        manifests.stage("a1", "a", [0], [1]),
        manifests.stage("b1", "b", [1], [2]),
        manifests.stage("c1", "c", [1], [3]),
        manifests.stage("a2", "a", [0, 2, 3], [4]),
    ]
    return manifests.manifest([manifests.plan(stages)], {"x": 0}, {"y": 4, "side": 2})


def routers(manifest: Manifest) -> dict[str, Router]:
    plan = manifest.plan
    receivers = receivers_of(manifest, plan)
    made = {}
    for device in plan.devices:
        stages = [stage for stage in plan.stages if stage.device == device]
        values = [tensor.value for stage in stages for tensor in stage.outputs]
        made[device] = Router(stages, {value: receivers[value] for value in values}, 8)
    return made


def test_receivers_get_each_value_once() -> None:
    assert receivers_of(diamond(), diamond().plan) == {
        0: ("a",),
        1: ("b", "c"),
        2: ("a", HEAD),
        3: ("a",),
        4: (HEAD,),
    }


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_order_runs_each_stage_once_and_keeps_nothing(seed: int) -> None:
    manifest = diamond()
    devices = routers(manifest)
    choose = random.Random(seed)
    messages: list[tuple[str, int, tuple[int, ...]]] = [("a", batch, (0,)) for batch in range(4)]
    tasks: list[tuple[str, Task]] = []
    ran: list[tuple[int, str]] = []
    head: dict[int, set[int]] = {}
    kept = {(name, batch): set() for name in devices for batch in range(4)}  # type: ignore[var-annotated]
    while messages or tasks:
        if messages and (not tasks or choose.random() < 0.5):
            name, batch, values = messages.pop(choose.randrange(len(messages)))
            if name == HEAD:
                head.setdefault(batch, set()).update(values)
                continue
            ready = devices[name].arrive(batch, values)
            assert ready is not None
            kept[name, batch] |= set(values)
            tasks += [(name, task) for task in ready]
        else:
            name, task = tasks.pop(choose.randrange(len(tasks)))
            ran.append((task.batch, task.stage.name))
            assert {t.value for t in task.stage.inputs} <= kept[name, task.batch]
            outcome = devices[name].done(task)
            kept[name, task.batch] |= {t.value for t in task.stage.outputs}
            kept[name, task.batch] -= set(outcome.free)
            messages += [(receiver, task.batch, values) for receiver, values in outcome.sends.items()]
            tasks += [(name, ready) for ready in outcome.tasks]
    assert sorted(ran) == sorted((batch, stage.name) for batch in range(4) for stage in manifest.plan.stages)
    assert head == {batch: {2, 4} for batch in range(4)}
    assert not any(kept.values())
    assert not any(router.open_batches for router in devices.values())


def test_a_stage_that_reads_nothing_runs_when_told_of_the_batch() -> None:
    router = Router([manifests.stage("s", "a", [], [1])], {1: (HEAD,)}, 8)
    (task,) = router.arrive(3, ()) or ()
    outcome = router.done(task)
    assert outcome.finished
    assert dict(outcome.sends) == {HEAD: (1,)}


@pytest.mark.parametrize("values", [(7,), (4,)])
def test_values_nobody_waits_for_are_refused(values: tuple[int, ...]) -> None:
    assert routers(diamond())["a"].arrive(0, values) is None


def test_no_more_batches_than_agreed_and_none_twice() -> None:
    router = routers(diamond())["b"]
    for batch in range(8):
        assert router.arrive(batch, (1,)) is not None
    assert router.arrive(9, (1,)) is None
    assert router.arrive(3, (1,)) is None
