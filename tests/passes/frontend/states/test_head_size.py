"""Caches of GroupQueryAttention, as onnxruntime-genai writes them: the size of a head is known, states are written in
place, and steps of any length answer what the model does."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import tvmpipe
from tests.passes.frontend.states.decoders import grouped_query_decoder
from tvmpipe.errors import InputError
from tvmpipe.generation.pipeline_model import PipelineModel
from tvmpipe.passes.frontend.import_onnx import import_buckets
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.targets.description.cluster import parse_cluster

CONTEXT = 32


def test_a_sequence_is_what_the_model_answers() -> None:
    model = grouped_query_decoder()
    bundle = tvmpipe.build(
        model, parse_cluster('[[device]]\nname = "a"\n'), context=CONTEXT, buckets={"step": [1, 4, 16]}
    )
    assert bundle.manifest.sequences is not None
    assert {state.spec.shape for state in bundle.manifest.sequences.states} == {(1, 2, CONTEXT, 16)}
    for stage in bundle.manifest.plan.stages:
        assert len(stage.in_place) == 4, "keys and values of both layers, in each bucket"
    ids = np.random.default_rng(1).integers(0, 50, CONTEXT).tolist()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    empty = {one.name: np.zeros((1, 2, 0, 16), np.float32) for one in session.get_inputs() if "past" in one.name}
    told = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, CONTEXT), np.int64)}
    wanted = session.run(["logits"], told | empty)[0][0]
    with run_in_process(bundle) as pipe:
        sequence = PipelineModel(pipe, "grouped").sequence()
        found = []
        for count in (7, 1, 1, 16, 3, 4):
            begin = sequence.length
            found.append(sequence.feed(ids[begin : begin + count]).result())
    np.testing.assert_allclose(np.concatenate(found), wanted, rtol=1e-4, atol=1e-5)


def test_a_size_may_be_said() -> None:
    model = grouped_query_decoder()
    options = ImportOptions(context=CONTEXT, dims={"head_size": 16}, buckets={"step": [1]})
    (found,) = import_buckets(model, options).buckets
    assert {state.name for state in found.signature.states} == {
        f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")
    }
    with pytest.raises(InputError, match="--dim names 'heads'"):
        import_buckets(model, ImportOptions(context=CONTEXT, dims={"heads": 8}))
