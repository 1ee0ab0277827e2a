"""Chains of functions that are written as polynomials: each reads its input many times."""

from __future__ import annotations

import itertools

from onnx import helper

from tests.passes.compiled import check, model_of


def test_a_chain_compiles_in_the_time_of_its_links() -> None:
    """With each computed inside the next, nothing came of hours of simplifying."""
    names = ["Sigmoid", "Exp", "Tanh", "Erf", "Sigmoid", "Tanh", "Exp", "Erf"]
    values = ["x", *(f"v{place}" for place in range(len(names) - 1)), "y"]
    nodes = [helper.make_node(n, [a], [b]) for n, (a, b) in zip(names, itertools.pairwise(values), strict=True)]
    check(model_of(nodes, {"x": [3, 20]}))
