"""A decoder's bundle as a language model: the same logits as the model's own, however its tokens come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import tvmpipe
from tests.generation.fakes import make_tokenizer
from tests.passes.frontend.states.decoders import Decoder
from tvmpipe.bundle import Bundle
from tvmpipe.errors import BundleError, InputError, QueueFullError
from tvmpipe.generation.generate import generate
from tvmpipe.generation.options import GenerationOptions, SamplingOptions
from tvmpipe.generation.pipeline_model import PipelineModel
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import load_cluster, parse_cluster

CONTEXT = 32
DECODER = Decoder()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    cluster = tmp_path_factory.mktemp("cluster") / "two.toml"
    cluster.write_text('[[device]]\nname = "a"\n\n[[device]]\nname = "b"\n', encoding="utf-8")
    pins = {"000.*": "a"}  # so that both have something to do
    return tvmpipe.build(
        Decoder().model(), load_cluster(cluster), context=CONTEXT, sequences=2, buckets={"step": [1, 4, 16]}, pins=pins
    )


@pytest.fixture
def model(bundle: Bundle) -> Iterator[PipelineModel]:
    with run_in_process(bundle) as pipe:
        yield PipelineModel(pipe, "decoder")


def wanted(ids: list[int]) -> NDArray[np.float32]:
    """Logits of all tokens at once, as the model itself computes them from an empty past."""
    session = onnxruntime.InferenceSession(Decoder().model().SerializeToString())
    empty = np.zeros((1, DECODER.groups, 0, DECODER.depth), np.float32)
    feed = {f"past_key_values.0.{part}": empty for part in ("key", "value")}
    told = {"attention_mask": np.ones((1, len(ids)), np.int64), "position_ids": np.arange(len(ids))[None]}
    logits: NDArray[np.float32] = session.run(["logits"], {"input_ids": np.array([ids]), **told, **feed})[0][0]
    return logits


def test_the_same_logits_in_any_steps_interleaved(model: PipelineModel) -> None:
    assert (model.context, model.vocabulary, model.sequences) == (CONTEXT, DECODER.vocabulary, 2)
    random = np.random.default_rng(0)
    texts = [random.integers(0, DECODER.vocabulary, CONTEXT).tolist() for _ in range(2)]
    steps = [[7, 1, 1, 3, 16, 2, 2], [1, 1, 17, 5, 4, 3, 1]]
    opened = [model.sequence() for _ in texts]
    found: list[list[NDArray[np.float32]]] = [[], []]
    for pair in zip(*steps, strict=True):
        for place, count in enumerate(pair):
            begin = opened[place].length
            found[place].append(opened[place].feed(texts[place][begin : begin + count]).result())
            assert opened[place].length == begin + count
    for sequence, mine, text in zip(opened, found, texts, strict=True):
        np.testing.assert_allclose(np.concatenate(mine), wanted(text), rtol=1e-4, atol=1e-5)
        sequence.close()


def test_tokens_that_were_wrong_are_forgotten(model: PipelineModel) -> None:
    sequence = model.sequence()
    sequence.feed([1, 2, 3, 4, 5, 6, 7, 8]).result()
    sequence.truncate(3)
    np.testing.assert_allclose(sequence.feed([9, 10]).result(), wanted([1, 2, 3, 9, 10])[3:], rtol=1e-4, atol=1e-5)


def test_as_many_sequences_as_it_was_compiled_for(model: PipelineModel) -> None:
    first, second = model.sequence(), model.sequence()
    with pytest.raises(QueueFullError, match="all 2 sequences that the bundle was compiled for are in use"):
        model.sequence()
    second.close()
    second.close()
    third = model.sequence()
    assert third.length == 0
    np.testing.assert_allclose(third.feed([5]).result(), wanted([5]), rtol=1e-4, atol=1e-5)
    first.close()


def test_a_stage_writes_where_the_state_lies(bundle: Bundle) -> None:
    assert bundle.manifest.sequences is not None
    pairs = [pair for state in bundle.manifest.sequences.states for pair in state.values]
    writing = [stage for stage in bundle.manifest.plan.stages if stage.in_place]
    assert {value for stage in writing for value in stage.in_place} == {found for found, _ in pairs}
    state_bytes = sum(state.spec.size_bytes for state in bundle.manifest.sequences.states)
    assert all(state_bytes > stage.activation_bytes for stage in writing if stage.bucket == 2)


def test_what_does_not_generate_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    manifest = bundle.manifest.model_copy(update={"sequences": None})
    with run_in_process(bundle) as pipe:
        pipe.manifest = manifest
        with pytest.raises(BundleError, match="the model of bundle x keeps no state from one token to the next"):
            PipelineModel(pipe, "x")
        model = bundle.manifest.model
        pipe.manifest = bundle.manifest.model_copy(update={"model": model.model_copy(update={"outputs": model.inputs})})
        with pytest.raises(BundleError, match=r"answers .*; one that generates answers logits after each token"):
            PipelineModel(pipe, "x")


def recurrent(vocabulary: int = 40, width: int = 8) -> onnx.ModelProto:
    """h' = tanh(W h + E[token]) and logits of it, a token a step, as a Mamba's step replaces its states."""
    random = np.random.default_rng(3)
    weights = {
        "W": random.standard_normal((width, width)) / width**0.5,
        "E": random.standard_normal((vocabulary, width)),
        "U": random.standard_normal((width, vocabulary)),
    }
    nodes = [
        helper.make_node("Gather", ["E", "input_ids"], ["e"]),
        helper.make_node("MatMul", ["ssm_state", "W"], ["r"]),
        helper.make_node("Add", ["e", "r"], ["s"]),
        helper.make_node("Tanh", ["s"], ["ssm_state_out"]),
        helper.make_node("MatMul", ["ssm_state_out", "U"], ["logits"]),
    ]
    state, one = [1, 1, width], TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 1]),
            helper.make_tensor_value_info("ssm_state", one, state),
        ],
        [
            helper.make_tensor_value_info("logits", one, [1, 1, vocabulary]),
            helper.make_tensor_value_info("ssm_state_out", one, state),
        ],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_states_that_each_token_replaces(tmp_path: Path) -> None:
    cluster = parse_cluster('[[device]]\nname = "a"\n')
    bundle = tvmpipe.build(recurrent(), cluster, sequences=2)
    session = onnxruntime.InferenceSession(recurrent().SerializeToString())
    with run_in_process(bundle) as pipe:
        model = PipelineModel(pipe, "recurrent")
        assert not model.forgets
        texts = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]]
        opened = [model.sequence(), model.sequence()]
        states = [np.zeros((1, 1, 8), np.float32)] * 2
        for begin, end in ((0, 5), (5, 6), (6, 8)):
            for place, text in enumerate(texts):
                found = opened[place].feed(text[begin:end]).result()
                for token, row in zip(text[begin:end], found, strict=True):
                    feed = {"input_ids": np.array([[token]]), "ssm_state": states[place]}
                    logits, states[place] = session.run(None, feed)
                    np.testing.assert_allclose(row, logits[0, 0], rtol=1e-5, atol=1e-6)
                assert opened[place].length == end
        tokenizer = make_tokenizer()
        with pytest.raises(InputError, match="this model's states cannot forget any"):
            next(generate(model, tokenizer, [1, 2], GenerationOptions(SamplingOptions(temperature=0), draft=2)))
