"""Makers of random nodes, a theme a file."""

from benchmarks.random_graphs.operators import (  # noqa: F401
    control,
    elementwise,
    microsoft,
    movement,
    products,
    quantised,
    rare,
    recurrent,
    reductions,
    signals,
    windows,
)
