"""The decoders, placements and comparisons that benchmarks of sequences rely on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.sequences.greedy import Greedy, Text, prompts
from benchmarks.sequences.models import Shape, attention_alone, llama
from benchmarks.sequences.right import compare
from benchmarks.sequences.running import caches, cluster_of, compile_as, cut_layers, fuse, generate
from tvmpipe.generation.pipeline_model import PipelineModel
from tvmpipe.runtime.emulation.inprocess import run_in_process

SHAPE = Shape(layers=3, hidden=32, inner=64, heads=2, groups=1, depth=16, vocabulary=60, context=40)
KEYS = ("alpha", "beta")


@pytest.mark.parametrize("int4", [False, True], ids=["fp32", "int4"])
def test_a_decoder_generates_what_onnxruntime_does(tmp_path: Path, int4: bool) -> None:
    model = llama(SHAPE, int4=int4)
    onnx.save(model, tmp_path / "model.onnx")
    fused = fuse(model, SHAPE.context, 1, buckets={"sequence_length": [1]})
    bundle = compile_as(fused, cluster_of(KEYS), cut_layers(fused.graph, {"alpha": 1, "beta": 2}))
    assert caches(bundle) == list(KEYS)
    given = prompts([1, 6], SHAPE.vocabulary)
    greedy = Greedy(tmp_path / "model.onnx", SHAPE.groups, SHAPE.depth)
    told: list[tuple[int, int]] = []
    with run_in_process(bundle) as pipe:
        texts = generate(PipelineModel(pipe, "decoder"), given, 30, lambda text, place: told.append((text, place)))
    wanted = [greedy.generate(prompt, 30) for prompt in given]
    found = compare(texts, wanted, "1")
    assert found.equal == found.tokens == 60
    assert found.fewest > 1
    assert 0 < found.difference < 1e-5
    assert sorted(told) == [(text, place) for text in range(2) for place in range(30)]


@pytest.mark.parametrize(
    ("shares", "layers"), [((1, 1, 1), (1, 1, 1)), ((1, 5, 3), (0, 2, 1)), ((1, 0.1, 0.1), (3, 0, 0))]
)
def test_layers_are_dealt_by_shares(shares: tuple[float, ...], layers: tuple[int, ...]) -> None:
    graph = fuse(attention_alone(SHAPE), SHAPE.context, 1, buckets={"sequence_length": [1]}).graph
    placement = cut_layers(graph, dict(zip("abc", shares, strict=True)))
    assert list(placement.values()) == sorted(placement.values())
    dealt = [device for name, device in placement.items() if "cached_attention" in name]
    assert tuple(dealt.count(device) for device in "abc") == layers


def test_a_token_that_differs_is_seen() -> None:
    """Logits count as far as the tokens before them are the same."""
    logits = np.array([[0, 1, 3], [0, 4, 1], [2, 0, 1]], np.float32)
    moved = logits + np.array([[0], [0.5], [9]], np.float32)
    found = compare([Text((2, 0, 0), moved)], [Text((2, 1, 0), logits)], "1")
    assert (found.equal, found.tokens, found.fewest) == (2, 3, 3)
    assert found.difference == pytest.approx(0.5 / 4)
    assert found.margin == pytest.approx(1 / 4)
