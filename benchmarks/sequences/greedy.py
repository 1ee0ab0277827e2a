"""What a decoder generates in ONNX Runtime, which is fed its own caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

FLOATS = 1
"""The `accuracy_level` of MatMulNBits with which ONNX Runtime multiplies the activations that the file says. With 4,
which onnxruntime-genai writes, it rounds them to 8 bits first."""


@dataclass(frozen=True)
class Text:
    """Tokens that followed a prompt, and the logits that each of them was chosen from, [tokens, vocabulary]."""

    tokens: tuple[int, ...]
    logits: NDArray[np.float32]


class Greedy:
    """The most probable token each time, in a session on one thread. Caches have `groups` heads of `depth` elements."""

    def __init__(self, path: Path, groups: int, depth: int) -> None:
        model = onnx.load(path)
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                    attribute.i = FLOATS
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._empty = {name: np.zeros((1, groups, 0, depth), np.float32) for name in self._inputs if "past" in name}

    def generate(self, prompt: Sequence[int], count: int) -> Text:
        """So many tokens after a prompt."""
        past: dict[str, Any] = self._empty
        new, length = list(prompt), 0
        tokens, rows = [], []
        for _ in range(count):
            total = length + len(new)
            told = {
                "input_ids": np.array([new], np.int64),
                "attention_mask": np.ones((1, total), np.int64),
                "position_ids": np.arange(length, total)[None],
            }
            feed = {name: array for name, array in told.items() if name in self._inputs}
            logits, *kept = self._session.run(None, {**feed, **past})
            past = dict(zip(self._empty, kept, strict=True))
            rows.append(logits[0, -1])
            new, length = [int(logits[0, -1].argmax())], total
            tokens += new
        return Text(tuple(tokens), np.array(rows))


class GreedySteps:
    """The same with a model that takes a token at a time and replaces its states."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options)
        given = self._session.get_inputs()
        self._zeros = {one.name: np.zeros(one.shape, np.float32) for one in given if one.name != "input_ids"}

    def generate(self, prompt: Sequence[int], count: int) -> Text:
        """So many tokens after a prompt."""
        states: dict[str, Any] = self._zeros
        given, tokens, rows = list(prompt), [], []
        for place in range(len(prompt) + count - 1):
            logits, *kept = self._session.run(None, {"input_ids": np.array([[given[place]]]), **states})
            states = dict(zip(self._zeros, kept, strict=True))
            if place >= len(prompt) - 1:
                rows.append(logits[0, -1])
                tokens.append(int(logits[0, -1].argmax()))
                given.append(tokens[-1])
        return Text(tuple(tokens), np.array(rows))


def prompts(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Seeded tokens, so many in each."""
    random = np.random.default_rng(seed)
    return [random.integers(0, vocabulary, length).tolist() for length in lengths]
