"""Bookkeeping of one device: what can run when, who is sent what, what is kept."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime import manifests
from tvmpipe.manifest import HEAD, Manifest
from tvmpipe.runtime.device.router import Router, Task
from tvmpipe.runtime.device.spec import Opening, host_spec


def diamond() -> Manifest:
    """x -> a1 -> (b1, c1) -> a2 -> y, where b1 also gives a result and a2 reads x again."""
    stages = [
        manifests.stage("a1", "a", [0], [1]),
        manifests.stage("b1", "b", [1], [2]),
        manifests.stage("c1", "c", [1], [3]),
        manifests.stage("a2", "a", [0, 2, 3], [4]),
    ]
    return manifests.manifest([manifests.plan(stages)], {"x": 0}, {"y": 4, "side": 2})


@st.composite
def in_turns(draw: st.DrawFn) -> Manifest:
    """Stages in any order on groups of one to three devices, each with any of the values before it."""
    names = iter("abcdefghi")
    places = [[next(names) for _ in range(draw(st.integers(1, 3)))] for _ in range(draw(st.integers(1, 3)))]
    stages = []
    count = draw(st.integers(1, 5))
    for number in range(1, count + 1):
        reads = draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3))
        stages += manifests.in_turn(f"s{number}", draw(st.sampled_from(places)), sorted(reads), [number])
    results = {"y": count} | {f"y{value}": value for value in draw(st.sets(st.integers(1, count)))}
    return manifests.manifest([manifests.plan(stages)], {"x": 0}, results)


def routers(manifest: Manifest) -> dict[str, Router]:
    """A router for each device, from what that is told when the plan is opened."""
    links = {device: f"127.0.0.1:{number}" for number, device in enumerate(manifest.plan.devices, start=1)}
    opening = Opening(session="0" * 16, owner="", links=links, head_link="", head_status="", lease_s=1.0, max_batches=8)
    specs = {device: host_spec(manifest, manifest.plan, device, opening) for device in manifest.plan.devices}
    return {
        device: Router(
            spec.stages, spec.routes, spec.max_batches, spec.turn, {peer.name: peer.turn for peer in spec.peers}
        )
        for device, spec in specs.items()
    }


def carried(manifest: Manifest) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(link.sender, link.receiver): link.values for link in manifest.plan.links}


def test_each_device_is_told_what_its_links_carry() -> None:
    assert carried(diamond()) == {
        (HEAD, "a"): (0,),
        ("a", "b"): (1,),
        ("a", "c"): (1,),
        ("b", "a"): (2,),
        ("c", "a"): (3,),
        ("a", HEAD): (4,),
        ("b", HEAD): (2,),
    }
    opening = Opening(
        session="0" * 16,
        owner="",
        links=dict.fromkeys("abc", "127.0.0.1:1"),
        head_link="127.0.0.1:2",
        head_status="",
        lease_s=1.0,
        max_batches=8,
    )
    spec = host_spec(diamond(), diamond().plan, "b", opening)
    assert spec.routes == {2: ("a", HEAD)}
    assert [(peer.name, peer.address) for peer in spec.peers] == [("a", "127.0.0.1:1"), (HEAD, "127.0.0.1:2")]


@settings(max_examples=200, deadline=None)
@given(manifest=st.one_of(st.just(diamond()), in_turns()), seed=st.integers(0, 10_000))
def test_any_order_runs_each_stage_once_and_keeps_nothing(manifest: Manifest, seed: int) -> None:
    devices = routers(manifest)
    turns = manifest.plan.turns
    choose = random.Random(seed)
    count = 7
    messages: list[tuple[str, int, tuple[int, ...]]] = [
        (device, batch, (0,))
        for (sender, device), values in carried(manifest).items()
        if sender == HEAD and values == (0,)
        for batch in range(count)
        if turns[device].takes(batch)
    ]
    tasks: list[tuple[str, Task]] = []
    ran: list[tuple[int, str]] = []
    head: dict[int, list[int]] = {}
    kept = {(name, batch): set() for name in devices for batch in range(count)}  # type: ignore[var-annotated]
    while messages or tasks:
        if messages and (not tasks or choose.random() < 0.5):
            name, batch, values = messages.pop(choose.randrange(len(messages)))
            if name == HEAD:
                head.setdefault(batch, []).extend(values)
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
    assert sorted(ran) == sorted(
        (batch, stage.name) for batch in range(count) for stage in manifest.plan.stages if stage.turn.takes(batch)
    )
    results = sorted(set(manifest.model_outputs.values()))
    assert {batch: sorted(values) for batch, values in head.items()} == dict.fromkeys(range(count), results)
    assert not any(kept.values())
    assert not any(router.open_batches for router in devices.values())


def test_a_stage_that_reads_nothing_runs_when_told_of_the_batch() -> None:
    router = Router([manifests.stage("s", "a", [], [1])], {1: (HEAD,)}, 8, announced=(0,))
    (task,) = router.arrive(3, ()) or ()
    assert router.arrive(3, ()) is None, "once"
    outcome = router.done(task)
    assert outcome.finished
    assert dict(outcome.sends) == {HEAD: (1,)}


def test_a_stage_that_reads_nothing_waits_to_be_told_even_where_others_send_values() -> None:
    """Else a batch could be finished before it is told of, and would begin once more."""
    stages = [manifests.stage("s", "a", [], [1]), manifests.stage("t", "a", [1, 2], [3])]
    router = Router(stages, {3: (HEAD,)}, 8, announced=(0,))
    assert router.arrive(3, (2,)) == ()
    (first,) = router.arrive(3, ()) or ()
    (second,) = router.done(first).tasks
    assert router.done(second).finished
    assert router.open_batches == []
    with_input = Router(stages, {3: (HEAD,)}, 8)
    assert [task.stage.name for task in with_input.arrive(3, (2,)) or ()] == ["s"], "its head sends it values"


@pytest.mark.parametrize("values", [(7,), (4,), ()])
def test_values_nobody_waits_for_are_refused(values: tuple[int, ...]) -> None:
    assert routers(diamond())["a"].arrive(0, values) is None


def test_no_more_batches_than_agreed_and_none_twice() -> None:
    router = routers(diamond())["b"]
    for batch in range(8):
        assert router.arrive(batch, (1,)) is not None
    assert router.arrive(9, (1,)) is None
    assert router.arrive(3, (1,)) is None


def test_devices_in_turn_know_whom_they_may_have_to_send_to() -> None:
    """Two before two are two lanes, and a batch that is not a device's turn is refused."""
    stages = [*manifests.in_turn("s0", "ab", [0], [1]), *manifests.in_turn("s1", "cd", [1], [2])]
    manifest = manifests.manifest([manifests.plan(stages)], {"x": 0}, {"y": 2})
    assert carried(manifest) == {
        (HEAD, "a"): (0,),
        (HEAD, "b"): (0,),
        ("a", "c"): (1,),
        ("b", "d"): (1,),
        ("c", HEAD): (2,),
        ("d", HEAD): (2,),
    }
    devices = routers(manifest)
    assert devices["b"].arrive(4, (0,)) is None
    (task,) = devices["b"].arrive(5, (0,)) or ()
    assert dict(devices["b"].done(task).sends) == {"d": (1,)}
    opening = Opening(
        session="0" * 16,
        owner="",
        links=dict.fromkeys("abcd", ""),
        head_link="",
        head_status="",
        lease_s=1.0,
        max_batches=8,
    )
    peers = {name: [p.name for p in host_spec(manifest, manifest.plan, name, opening).peers] for name in "abcd"}
    assert peers == {"a": ["c"], "b": ["d"], "c": [HEAD], "d": [HEAD]}


def test_a_batch_is_of_the_bucket_that_it_is_said_to_be() -> None:
    both = manifests.in_buckets(diamond(), (8, 2), {"x": 0.0})
    router = routers(both)["a"]
    (task,) = router.arrive(0, {manifests.IDS}, 1) or ()
    assert task.stage.name == "b1-a1"
    (other,) = router.arrive(1, {0}, 0) or ()
    assert other.stage.name == "a1"
    assert router.done(task).sends == {"b": (manifests.IDS + 1,), "c": (manifests.IDS + 1,)}
    assert router.arrive(0, {2}, 0) is None, "a batch of another bucket"
    assert router.arrive(0, {2}, 1) is None, "a value of another bucket"
    assert router.arrive(2, {0}, 2) is None, "a bucket that there is not"
    assert router.arrive(0, {manifests.IDS + 2}, 1) == ()
    (last,) = router.arrive(0, {manifests.IDS + 3}, 1) or ()
    assert router.done(last).finished
    assert router.open_batches == [1]
