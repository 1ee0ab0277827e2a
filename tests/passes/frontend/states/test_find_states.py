"""States of a model: by the names that exporters use, and as the user says."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.states.find_states import find_states


def model_with(inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> onnx.ModelProto:
    """A model of that signature, whose nodes mean nothing."""
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in group.items()]
        for group in (inputs, outputs)
    ]
    first = next(iter(inputs))
    nodes = [helper.make_node("Identity", [first], [name]) for name in outputs]
    return helper.make_model(helper.make_graph(nodes, "m", values[0], values[1]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.11.decoder.value", "present.11.decoder.value"),
        ("past_key_values.3.value", "present_key_values.3.value"),
        ("past_key_0", "present_key_0"),
        ("past.conv.2", "present.conv.2"),
        ("h", "hn"),
        ("c0", "cn"),
        ("h_0", "h_n"),
        ("h_in", "h_out"),
        ("state", "stateN"),
        ("hidden_state", "new_hidden_state"),
        ("cache_last_channel", "cache_last_channel_next"),
        ("cache_0", "cache_0_out"),
        ("in_cache1", "out_cache1"),
        ("ssm_state.4", "ssm_state.4_out"),
    ],
)
def test_names_of_exporters(old: str, new: str) -> None:
    found = find_states(model_with({"x": [1], old: [2, 3]}, {"y": [1], new: [2, 3]}), {}, by_name=True)
    assert [(state.name, state.output) for state in found] == [(old, new)]
    assert find_states(model_with({"x": [1], old: [2, 3]}, {"y": [1], new: [2, 3]}), {}, by_name=False) == ()


def test_what_only_looks_alike_is_none() -> None:
    assert not find_states(model_with({"x": [1], "h": [2]}, {"xn": [1], "hn": [2, 3]}), {}, by_name=True)
    assert not find_states(
        model_with({"image": [1], "mask": [2]}, {"image_out": [1], "mask_out": [2]}), {}, by_name=True
    )


def test_what_the_user_says_counts_and_each_output_is_one_state() -> None:
    model = model_with({"x": [1], "a": [2], "h": [2]}, {"y": [1], "b": [2], "hn": [2]})
    found = find_states(model, {"b": "a"}, by_name=True)
    assert [(state.name, state.output) for state in found] == [("a", "b"), ("h", "hn")]
    assert [state.output for state in find_states(model, {"hn": "a"}, by_name=True)] == ["hn"]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"z": "a"}, "--state z=a names 'z', which is no output of the model; allowed: y, b"),
        ({"b": "q"}, "--state b=q names 'q', which is no input of the model; allowed: x, a"),
        ({"b": "a", "y": "a"}, "--state has two outputs for the input 'a', 'b' and 'y'"),
    ],
)
def test_what_cannot_be_is_a_sentence(said: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        find_states(model_with({"x": [1], "a": [2]}, {"y": [1], "b": [2]}), said, by_name=True)
