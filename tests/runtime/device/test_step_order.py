"""Steps of sequences on a device: in their order, whatever the order that they arrive in."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.manifest import HEAD, Manifest
from tvmpipe.runtime.device.router import Router, Task
from tvmpipe.runtime.device.spec import HostSpec, Opening, host_spec
from tvmpipe.runtime.device.states import HeldStates, StateStore
from tvmpipe.runtime.device.step_order import StepOrder, touched_by
from tvmpipe.runtime.transport.wire import Fault, Step, Values

SLOTS = 3


@st.composite
def recurrent(draw: st.DrawFn) -> Manifest:
    """Stages in any order on up to three devices, where of each state the device of its first reader makes it."""
    devices = "abc"[: draw(st.integers(1, 3))]
    count, kept = draw(st.integers(2, 6)), draw(st.integers(1, 2))
    states = {50 + number: draw(st.sampled_from(devices)) for number in range(kept)}
    stages = []
    made: dict[int, int] = {}
    for number in range(1, count + 1):
        device = draw(st.sampled_from(devices))
        mine = [value for value, home in states.items() if home == device]
        # Some read the state as it was, some as it becomes.
        reads = draw(
            st.sets(st.sampled_from([*range(number), *mine, *(made[v] for v in mine if v in made)]), max_size=3)
        )
        makes = [number]
        for value in mine:
            if value not in made and (number == count or draw(st.booleans())):
                made[value] = value + 20
                makes.append(value + 20)
        stages.append(manifests.stage(f"s{number}", device, sorted(reads or {0}), makes))
    for value, device in states.items():
        if value not in made:
            stages.append(manifests.stage(f"last{value}", device, [count, value], [value + 20]))
    inputs = {"x": 0} | {f"in{value}": value for value in states}
    outputs = {"y": count} | {f"out{value}": value + 20 for value in states}
    one = manifests.manifest([manifests.plan(stages)], inputs, outputs)
    if draw(st.booleans()):
        one = manifests.in_buckets(one, (8, 2), {})
    return manifests.in_steps(one, {f"in{value}": f"out{value}" for value in states}, SLOTS)


def specs(manifest: Manifest, max_batches: int) -> dict[str, HostSpec]:
    links = {device: f"127.0.0.1:{number}" for number, device in enumerate(manifest.plan.devices, start=1)}
    opening = Opening(
        session="0" * 16,
        owner="",
        links=links,
        head_link="",
        head_status="",
        lease_s=1.0,
        max_batches=max_batches,
    )
    return {device: host_spec(manifest, manifest.plan, device, opening) for device in manifest.plan.devices}


@settings(max_examples=200, deadline=None)
@given(manifest=recurrent(), seed=st.integers(0, 10_000))
def test_steps_run_in_their_order_and_all_of_them_do(manifest: Manifest, seed: int) -> None:
    choose = random.Random(seed)
    batches: list[tuple[int, list[Step]]] = []  # with their buckets
    numbers = [0] * SLOTS
    for _ in range(8):
        slots = choose.sample(range(SLOTS), choose.randint(1, SLOTS))
        batches.append((choose.randrange(len(manifest.buckets)), [Step(s, numbers[s], False) for s in slots]))
        for slot in slots:
            numbers[slot] += 1
    told = specs(manifest, len(batches))
    routers = {
        name: Router(spec.stages, spec.routes, spec.max_batches, held=spec.held, announced=spec.announced)
        for name, spec in told.items()
    }
    orders = {name: StepOrder(spec.stages, spec.states) for name, spec in told.items()}
    messages: list[tuple[str, int, tuple[int, ...]]] = []
    for number, (bucket, _) in enumerate(batches):
        x = manifest.buckets[bucket].model_inputs["x"]
        for name, spec in told.items():
            if any(t.value == x for stage in spec.stages for t in stage.inputs if stage.bucket == bucket):
                messages.append((name, number, (x,)))
            if bucket in spec.announced:
                messages.append((name, number, ()))
    tasks: list[tuple[str, Task]] = []
    latest: dict[tuple[str, int, int], list[int]] = defaultdict(list)  # by device, state and slot: steps that ran
    ran: list[tuple[int, str]] = []
    results: dict[int, set[int]] = defaultdict(set)
    while messages or tasks:
        if messages and (not tasks or choose.random() < 0.5):
            name, number, values = messages.pop(choose.randrange(len(messages)))
            bucket, steps = batches[number]
            if name == HEAD:
                results[number].update(values)
                continue
            ready = routers[name].arrive(number, values, bucket)
            assert ready is not None
            tasks += [(name, task) for task in orders[name].admit(ready, steps)]
        else:
            name, task = tasks.pop(choose.randrange(len(tasks)))
            steps = batches[task.batch][1]
            ran.append((task.batch, task.stage.name))
            for state in touched_by(task.stage, told[name].states):
                for step in steps:
                    latest[name, state, step.slot].append(step.number)
            outcome = routers[name].done(task)
            messages += [(receiver, task.batch, values) for receiver, values in outcome.sends.items()]
            ready_now = [*orders[name].done(task, steps), *orders[name].admit(outcome.tasks, steps)]
            tasks += [(name, one) for one in ready_now]
    wanted = [(n, stage.name) for n, (bucket, _) in enumerate(batches) for stage in manifest.plan.stages_of(bucket)]
    assert sorted(ran) == sorted(wanted)
    assert all(steps == sorted(steps) for steps in latest.values())
    assert latest
    outputs = {n: {*manifest.buckets[bucket].model_outputs.values()} for n, (bucket, _) in enumerate(batches)}
    assert results == outputs
    assert not any(router.open_batches for router in routers.values())
    assert not any(order.parked for order in orders.values())


def counter() -> Manifest:
    """One stage that reads the state n and makes it anew, another that reads both."""
    stages = [manifests.stage("next", "a", [1], [2]), manifests.stage("y", "a", [0, 1, 2], [3])]
    one = manifests.manifest([manifests.plan(stages)], {"x": 0, "n": 1}, {"y": 3, "n'": 2})
    return manifests.in_steps(one, {"n": "n'"}, count=2)


def test_what_is_too_early_holds_up_nobody_else() -> None:
    spec = specs(counter(), 4)["a"]
    order, (after, reader) = StepOrder(spec.stages, spec.states), spec.stages
    early = [Task(1, after), Task(1, reader)]
    assert order.admit(early, [Step(0, 1, False)]) == []
    assert order.admit([Task(2, after)], [Step(1, 0, True)]) == [Task(2, after)]
    assert order.admit([Task(0, after)], [Step(0, 0, True)]) == [Task(0, after)]
    assert order.done(Task(0, after), [Step(0, 0, True)]) == [], "another stage of that step reads it still"
    assert order.parked == 2
    assert order.done(Task(0, reader), [Step(0, 0, True)]) == early
    assert order.parked == 0


def test_states_are_zeros_at_first_and_then_what_the_step_before_made() -> None:
    spec = specs(counter(), 4)["a"]
    states = HeldStates(spec.stages, StateStore(spec.states, spec.slots))
    assert spec.state_bytes == 2 * 24
    made = np.ones(manifests.SHAPE, np.float32)
    for slot in (0, 1, 0):
        sample = {0: made}
        assert states.bring("next", Step(slot, 0, True), sample) is None
        assert not sample[1].any()
        sample[2] = made
        states.keep("next", Step(slot, 0, True), sample, None)
        assert states.bring("y", Step(slot, 0, True), sample) is None
        assert not sample[1].any(), "it reads the state as it was, though that has been made anew"
        later = {0: made}
        assert states.bring("next", Step(slot, 1, False), later) is None
        assert later[1] is made, "without a copy"


@pytest.mark.parametrize("grows", [False, True])
def test_after_a_step_that_failed_nothing_is_left_until_another_sequence_begins(grows: bool) -> None:
    spec = specs(counter(), 4)["a"]
    entry = spec.states[0].model_copy(update={"axis": 0, "adds": (1,)} if grows else {})
    states = HeldStates(spec.stages, StateStore([entry], spec.slots))
    sample = {0: np.ones(manifests.SHAPE, np.float32)}
    why = Fault("a", "next", "no such index")
    assert states.bring("next", Step(0, 0, True), sample) is None
    states.keep("next", Step(0, 0, True), sample, why)
    for number in (1, 2):
        assert states.bring("next", Step(0, number, False), {}) == why
        states.keep("next", Step(0, number, False), {}, why)
    assert states.bring("next", Step(1, 0, True), {}) is None
    again: Values = {}
    assert states.bring("next", Step(0, 3, True), again) is None
    assert not again[1].any()
