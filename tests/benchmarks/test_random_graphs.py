"""Random graphs: a few that hypothesis builds are right, every operator is proposed, and a wrong one is found out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import benchmarks.random_graphs.operators  # noqa: F401  # registers the makers
from benchmarks.random_graphs.check import blame, check
from benchmarks.random_graphs.coverage import NOT_TRIED, supported, table
from benchmarks.random_graphs.graphs import model_with
from benchmarks.random_graphs.pool import Pool
from benchmarks.random_graphs.proposal import MAKERS
from tests.passes.compiled import few

OPERATORS = st.lists(st.sampled_from(sorted(MAKERS)), min_size=6, max_size=9)


@few(8)
@given(st.integers(0, 2**32 - 1), OPERATORS)
def test_graphs_of_all_operators_keep_their_meaning(seed: int, operators: list[str]) -> None:
    made = model_with(operators, seed)
    assume(made is not None)
    assert made is not None
    found = check(made, seed)
    assert found.verdict != "different", f"{found.sentence}\n{blame(made)}"


def test_one_cut_between_devices() -> None:
    made = model_with(["Conv", "Relu", "Softmax", "Add", "ReduceMax"], 5)
    assert made is not None
    assert check(made, 5, staged=True).verdict == "equal"


def test_every_supported_operator_is_proposed() -> None:
    proposed = set()
    for name, maker in MAKERS.items():
        for seed in range(30):
            pool = Pool(np.random.default_rng(seed), [], "float32", wild=seed % 3 == 0)
            try:
                proposed.update(maker(pool, name).operators)
            except LookupError:
                continue
    assert set(supported()) <= proposed
    assert proposed.isdisjoint(NOT_TRIED)


def test_a_wrong_operator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmpipe.passes.frontend.converters import registry

    converters = {**registry._CONVERTERS, ("", "Elu"): lambda node: node.input(0)}
    monkeypatch.setattr("tvmpipe.passes.frontend.importer.converters", lambda: converters)
    made = model_with(["Tanh", "Elu"], 2)
    assert made is not None
    assert check(made, 2).verdict == "different"
    assert " = Elu " in blame(made)


def test_the_table_says_what_never_appeared() -> None:
    row = {"seed": 7, "verdict": "equal", "operators": {"Add": 2}, "left": {}, "disputes": [["Add", "the reference's"]]}
    text = table([row, {**row, "seed": 8}])
    assert "2 graphs of the seeds 7-8; 4 nodes of 1 operators" in text
    assert "Abs, Acos" in text
    assert "Add: ours is the reference's, 2 times" in text
