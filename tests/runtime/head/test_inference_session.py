"""A program written for ONNX Runtime: one line of it changes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import tvmpipe
from tests.models import branchy
from tests.waiting import PATIENCE_S
from tvmpipe.bundle import Bundle
from tvmpipe.equality import compare
from tvmpipe.errors import InputError, SampleError
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.local_cluster import LocalCluster


def feed_of(session: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs of the types that a session says."""
    generator = np.random.default_rng(0)
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    return {one.name: generator.integers(0, 3, one.shape).astype(types[one.type]) for one in session.get_inputs()}


def program(session: Any) -> tuple[list[tuple[str, list[Any], str]], list[np.ndarray[Any, Any]]]:
    """What programs do with a session."""
    described = [(one.name, list(one.shape), one.type) for one in (*session.get_inputs(), *session.get_outputs())]
    return described, session.run(None, feed_of(session))


def test_the_same_program(branchy_bundle: Bundle, agents: LocalCluster) -> None:
    model = branchy().SerializeToString()
    theirs, wanted = program(ort.InferenceSession(model, providers=["CPUExecutionProvider"]))
    with tvmpipe.InferenceSession(branchy_bundle, tracker=agents.tracker) as session:
        ours, found = program(session)
        names = [one.name for one in session.get_outputs()]
        assert ours == theirs
        feed = feed_of(session)
        expected = Reference(model).expect(feed)
        assert compare(dict(zip(names, found, strict=True)), expected).equal
        assert [one.shape for one in found] == [one.shape for one in wanted]
        (last,) = session.run(names[-1:], feed)
        assert np.array_equal(last, found[-1])
        told: list[Any] = []
        there = threading.Event()

        def take(outputs: list[Any], data: Any, error: str) -> None:
            told.append((outputs, data, error))
            there.set()

        session.run_async(None, feed, take, "mine")
        assert there.wait(PATIENCE_S)
        outputs, data, error = told[0]
        assert (data, error) == ("mine", "")
        assert all(np.array_equal(one, other) for one, other in zip(outputs, found, strict=True))
        with pytest.raises(SampleError, match="output 'none' is not one of the model's; allowed: "):
            session.run(["none"], feed)
        with pytest.raises(SampleError, match="is missing"):
            session.run(None, {})
        with pytest.raises(InputError, match="run_options are ONNX Runtime's"):
            session.run(None, feed, object())  # type: ignore[arg-type]
