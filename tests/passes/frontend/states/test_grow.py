"""States that grow, as buffers: the rewritten model computes what the given one does, or is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.passes.frontend.states.decoders import Decoder
from tvmpipe.errors import InputError, UnsupportedModelError
from tvmpipe.passes.frontend.agreement import runnable
from tvmpipe.passes.frontend.import_onnx import import_buckets
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.frontend.states.find_states import find_states
from tvmpipe.passes.frontend.states.grow import GrowingModel, growing_model

CONTEXT = 24


def growing(model: onnx.ModelProto, context: int | None = CONTEXT) -> GrowingModel:
    found = growing_model(model, find_states(model, {}, by_name=True), context, {}, set())
    assert found is not None
    return found


def logits_of(decoder: Decoder, steps: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """What the given model and the one with buffers answer to the same steps, of so many elements each."""
    model = decoder.model()
    given = growing(model)
    original, made = runnable(model), {step: given.bucket({}, {"step": step})[0] for step in set(steps)}
    rewritten = {step: runnable(one) for step, one in made.items()}
    shape = (1, decoder.groups, CONTEXT, decoder.depth)
    past = [np.zeros((1, decoder.groups, 0, decoder.depth), np.float32)] * 2
    buffers = [np.full(shape, 7.0, np.float32)] * 2  # what is behind the end must not count
    names = [f"past_key_values.0.{part}" for part in ("key", "value")]
    random, length = np.random.default_rng(1), 0
    wanted, found = [], []
    for step in steps:
        ids = random.integers(0, decoder.vocabulary, (1, step))
        told = {
            "attention_mask": np.ones((1, length + step), np.int64),
            "position_ids": np.arange(length, length + step)[None],
        }
        feed = {name: told[name] for name in decoder.told} | dict(zip(names, past, strict=True))
        logits, *past = original.run({"input_ids": ids, **feed})
        wanted.append(logits)
        feed = dict(zip(names, buffers, strict=True)) | {given.growing.length: np.array(length)}
        logits, *buffers = rewritten[step].run({"input_ids": ids, **feed})
        found.append(logits)
        length += step
        assert {one.shape for one in buffers} == {shape}
    return wanted, found


@pytest.mark.parametrize(
    "decoder",
    [
        Decoder(),
        Decoder(groups=4, told=()),
        Decoder(groups=1, told=("attention_mask",)),
        Decoder(told=("position_ids",), window=5),
        Decoder(groups=4, told=("attention_mask",), window=3),
    ],
    ids=lambda decoder: f"{decoder.groups}-{'+'.join(decoder.told) or 'told nothing'}-{decoder.window}",
)
def test_a_sequence_of_steps_is_the_same_with_buffers(decoder: Decoder) -> None:
    wanted, found = logits_of(decoder, (5, 1, 1, 5, 1, 5, 5, 1))
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_without_a_mask_of_its_own_a_model_gets_one_for_what_is_behind_the_end() -> None:
    decoder = Decoder(causal=False, told=())
    wanted, found = logits_of(decoder, (1,) * 8)
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_what_no_mask_hides_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"computes something else \(after \d+ elements.*--no-state"):
        growing(Decoder(flaw="sum").model()).bucket({}, {"step": 1})


def test_a_state_that_is_no_concatenation_is_refused() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"output 'present.0.value' is no concatenation of input .* \(Mul\)"
    ):
        growing(Decoder(flaw="slice").model()).bucket({}, {"step": 1})


def test_a_context_is_asked_for_and_a_needless_one_refused() -> None:
    with pytest.raises(InputError, match=r"'past_key_values.0.key' grows along its dimension 2 .* --context 2048"):
        growing(Decoder().model(), None)
    model = Decoder().model()
    with pytest.raises(InputError, match="--context 24 is for states that grow along an open dimension"):
        import_buckets(model, ImportOptions(context=24, stateful=False))


def test_a_context_that_is_no_larger_than_a_step_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="a step of 30 elements does not fit into a context of 24"):
        growing(Decoder().model()).bucket({}, {"step": 30})


def test_buckets_of_steps_have_the_same_states() -> None:
    found = import_buckets(Decoder().model(), ImportOptions(context=CONTEXT))
    assert [dict(one.extents) for one in found.buckets] == [{"step": 16}, {"step": 1}]
    assert [[state.adds for state in one.signature.states] for one in found.buckets] == [[16, 16], [1, 1]]
    for one in found.buckets:
        assert [spec.name for spec in one.signature.given] == ["input_ids", "past_length"]
        assert [spec.name for spec in one.signature.answered] == ["logits"]
        assert {spec.shape for spec in one.signature.inputs if spec.name.startswith("past_key")} == {(1, 2, CONTEXT, 8)}
