"""What these benchmarks share: placing a decoder on devices, and generating with several sequences at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.sequences.greedy import Text
from tvmpipe.bundle import Bundle
from tvmpipe.generation.language_model import LanguageModel
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.description.cluster import Cluster, parse_cluster

ATTENTION = "cached_attention"
"""What names of primitives that read a cache have in them."""

Told = Callable[[int, int], None]
"""Called with the number of a text and the place of the token that was just generated in it."""


def cluster_of(keys: Sequence[str], more: str = "") -> Cluster:
    """Devices of one thread, called so, all with these further lines of a cluster file."""
    return parse_cluster("".join(f'[[device]]\nname = "{key}"\nthreads = 1\n{more}\n' for key in keys))


def cut_layers(graph: PrimitiveGraph, shares: Mapping[str, float]) -> dict[str, str]:
    """A device for each primitive: each has its share of the layers, in the order in which they run.

    A layer ends here with its attention, behind which nothing is needed of its cache; the last one with the model.
    """
    names = list(graph.by_name())
    layers = sum(ATTENTION in name for name in names)
    bounds = np.cumsum(list(shares.values())) / sum(shares.values()) * layers
    placement, layer = {}, 0
    for name in names:
        # Whoever gets its middle gets it.
        place = int(np.searchsorted(bounds, min(layer, layers - 1) + 0.5))
        placement[name] = list(shares)[place]
        layer += ATTENTION in name
    return placement


def compile_as(fused: driver.Fused, cluster: Cluster, placement: Mapping[str, str], **options: Any) -> Bundle:
    """The bundle with this device for each primitive, as a plan file says."""
    with TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.yaml"
        plan.write_text("placement:\n" + "".join(f"  {name}: {device}\n" for name, device in placement.items()))
        return driver.compile(driver.plan(fused, cluster, BuildOptions(plan=plan, **options))).bundle


def cut_states(graph: PrimitiveGraph, keys: Sequence[str]) -> dict[str, str]:
    """A device for each primitive that reads or makes a state: each device has as many states, in their order."""
    count = len(graph.state_users)
    return {
        graph.primitives[user].name: keys[number * len(keys) // count]
        for number, users in enumerate(graph.state_users)
        for user in users
    }


def compile_pinned(fused: driver.Fused, cluster: Cluster, pins: Mapping[str, str]) -> Bundle:
    """The bundle with some primitives on these devices."""
    return driver.compile(driver.plan(fused, cluster, BuildOptions(pins=pins, time_limit_s=10.0))).bundle


def fuse(model: Any, context: int | None, sequences: int, **options: Any) -> driver.Fused:
    """Import a decoder with its caches, or other states where `context` is None."""
    return driver.front(model, ImportOptions(context=context, sequences=sequences, **options))


def caches(bundle: Bundle) -> list[str]:
    """Devices that write a cache in place."""
    return list(dict.fromkeys(stage.device for stage in bundle.manifest.plan.stages if stage.in_place))


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    tell: Told = lambda _text, _place: None,
    pace_s: float = 0.0,
) -> list[Text]:
    """Greedily so many tokens after each prompt, as many texts at once as the model has sequences.

    A text's reader takes at most a token each `pace_s`. Raises what a step raises.
    """

    def write(number: int) -> Text:
        tokens: list[int] = []
        rows = []
        sequence = model.sequence()
        try:
            new = list(prompts[number])
            for place in range(count):
                due = time.monotonic() + pace_s
                answer = sequence.feed(new).result()
                if len(answer) != len(new):
                    raise AssertionError(f"{len(answer)} rows of logits for {len(new)} tokens")
                rows.append(answer[-1])
                new = [int(answer[-1].argmax())]
                tokens += new
                tell(number, place)
                time.sleep(max(0.0, due - time.monotonic()))
        finally:
            sequence.close()
        return Text(tuple(tokens), np.array(rows))

    with ThreadPoolExecutor(model.sequences) as pool:
        return list(pool.map(write, range(len(prompts))))


class Meter:
    """Counts tokens as they come, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.times: list[float] = []

    def tell(self, _text: int, _place: int) -> None:
        """A token is there."""
        with self._lock:
            self.times.append(time.perf_counter())
