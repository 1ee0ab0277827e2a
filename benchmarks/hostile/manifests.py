"""Manifests that somebody changed, with a seal that fits: loaded, and used as a head and a device use what they say."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tvmpipe
from benchmarks.hostile.row import Options, Row
from benchmarks.hostile.sample import write_manifest, write_sample
from benchmarks.hostile.sandbox import Attempt, try_all
from tvmpipe.bundle import MANIFEST, Bundle
from tvmpipe.runtime.device.router import Router, TaskQueue
from tvmpipe.runtime.device.spec import HostSpec, Opening, host_spec
from tvmpipe.runtime.device.stored_file import stored_files
from tvmpipe.runtime.head.settings import Settings
from tvmpipe.runtime.head.state_machine import StateMachine
from tvmpipe.runtime.head.telemetry import Telemetry
from tvmpipe.tensors import random_tensor
from tvmpipe.text import clean

_LARGEST_SAMPLE_BYTES = 1 << 20
_MOST_WRITTEN_BYTES = 1 << 20  # by `use`, which saves what was let in
_BATCHES = 8


def check(options: Options) -> Iterator[Row]:
    """Changes of what a manifest says, and of its bytes."""
    with tempfile.TemporaryDirectory(prefix="tvmpipe-hostile-") as folder:
        root = Path(folder) / "bundle"
        root.mkdir()
        write_sample(root)
        base = (root / MANIFEST).read_bytes()
        for door, mutate in (("manifest: what it says", change_values), ("manifest: its bytes", change_bytes)):

            def prepare(number: int, mutate: Callable[[bytes, random.Random], bytes] = mutate) -> Attempt:
                write_manifest(root, mutate(base, random.Random(f"{options.seed} {number}")))
                return Attempt(lambda: use(tvmpipe.load(root)), _MOST_WRITTEN_BYTES)

            yield try_all(door, prepare, options)


def use(bundle: Bundle) -> None:
    """What a head and the devices make of a bundle before the first sample: whatever was let in must not harm here."""
    manifest = bundle.manifest
    Telemetry(manifest).counts()
    machine = StateMachine(manifest, Settings(batch=1, max_batches=manifest.plan.inflight, failover=True))
    machine.start()
    specs = manifest.model.inputs
    if sum(spec.size_bytes for spec in specs) < _LARGEST_SAMPLE_BYTES:
        for spec in specs:
            random_tensor(spec, np.random.default_rng(0))
    for plan in manifest.plans:
        opening = Opening(
            session="0" * 16,
            owner="somebody",
            links={name: "127.0.0.1:9200" for name in plan.devices},
            head_link="127.0.0.1:1",
            head_status="127.0.0.1:2",
            lease_s=10.0,
            max_batches=plan.inflight,
        )
        made = {name: HostSpec.model_validate_json(_spec(bundle, plan, name, opening)) for name in plan.devices}
        for hosted in made.values():
            for stage in hosted.stages:
                stored_files(stage)
            _pass_batches(hosted)
    with tempfile.TemporaryDirectory(prefix="tvmpipe-hostile-") as folder:
        saved = tvmpipe.load(bundle.save(Path(folder) / "again.tar"))
        if saved.manifest != manifest:
            raise ValueError("what was saved is not what was loaded")


def _spec(bundle: Bundle, plan: Any, device: str, opening: Opening) -> str:
    return host_spec(bundle.manifest, plan, device, opening).model_dump_json()


def _pass_batches(spec: HostSpec) -> None:
    """A few batches through a device's router, which must run each stage of those that are its turn once."""
    turns = {peer.name: peer.turn for peer in spec.peers}
    router = Router(spec.stages, spec.routes, spec.max_batches, spec.turn, turns, spec.held)
    queue = TaskQueue(spec.depths)
    outside = {t.value for stage in spec.stages for t in stage.inputs} - {
        t.value for s in spec.stages for t in s.outputs
    }
    outside -= spec.held
    for batch in filter(spec.turn.takes, range(_BATCHES)):
        queue.add(router.arrive(batch, outside) or ())
        ran = 0
        while len(queue):
            queue.add(router.done(queue.take()).tasks)
            ran += 1
        if ran != len(spec.stages):
            raise ValueError(f"{ran} of {len(spec.stages)} stages of {clean(spec.device)} could run")


def change_values(base: bytes, rng: random.Random) -> bytes:
    """One to four changes of keys and values."""
    tree = json.loads(base)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        _change(tree, rng)
    try:
        return json.dumps(tree).encode()
    except RecursionError:
        return base


def change_bytes(base: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or cut off, and things that are no JSON."""
    data = bytearray(base)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) or 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.choice((1, 10, 1000))]
        elif kind == 2:
            data[at:at] = data[at : at + rng.choice((1, 10, 1000))]
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = rng.choice((b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"\\ud800", b"\0", b"1e999", b"NaN"))
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    return bytes(data)


def _change(tree: Any, rng: random.Random) -> None:
    places = list(_places(tree))
    if not places:
        return
    parent, key = rng.choice(places)
    kind = rng.randrange(7)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        parent[key] = json.loads(json.dumps(_at(rng.choice(places))))
    elif kind == 2 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), json.loads(json.dumps(parent[key])))
    elif kind == 3 and isinstance(parent, list):
        rng.shuffle(parent)
    elif kind == 4 and isinstance(parent, dict):
        parent[rng.choice(_STRINGS)] = parent.pop(key)
    elif isinstance(parent[key], bool | int | float) and rng.random() < 0.7:
        parent[key] = rng.choice(_NUMBERS)
    elif isinstance(parent[key], str) and rng.random() < 0.7:
        parent[key] = rng.choice(_STRINGS)
    else:
        parent[key] = rng.choice((None, True, [], {}, "", 0, _nested(200), [0] * 10_000, {"": None}))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or an index of something in it."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            for key in one if isinstance(one, dict) else range(len(one)):
                yield one, key
                waiting.append(one[key])


def _at(place: tuple[Any, Any]) -> Any:
    return place[0][place[1]]


def _nested(depth: int) -> Any:
    made: Any = 0
    for _ in range(depth):
        made = [made]
    return made


_NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 5, 7, 16, 255, 4096, 10**6, 2**31, 2**32, 2**48, 2**53, 2**63, 2**64, 2**200, -(2**63)),
    *(0.5, -0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("1", "nan", True, None),
)
_STRINGS = (
    *(
        "",
        " ",
        "head",
        "alpha",
        "beta",
        "gamma",
        "s0",
        "s1@beta",
        "x",
        "y",
        "w",
        "stages/s0.so",
        "weights/w0.safetensors",
    ),
    *("../../../../etc/passwd", "/etc/passwd", "a/../b", "./plan.yaml", "stages//s0.so", "stages", "manifest.json"),
    *(
        "d/" * 2000 + "f",
        "n" * 5000,
        "\x1b[2J",
        "[/b][link=javascript:alert(1)]",
        "\0",
        "\n",
        "\ud800",
        "\u202e",
        "漢字",
    ),
    *(
        "float16",
        "bfloat16",
        "object",
        "O",
        "float32,float32",
        "<f4",
        "U10",
        "V8",
        "M8[s]",
        "bool",
        "int3",
        "complex64",
    ),
    *("none", "fp16", "int8", "zip", "throughput", "f" * 64, "0" * 64, "g" * 64),
)
