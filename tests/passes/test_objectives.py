"""Objectives are found by name, and each says everything that is decided by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tvmpipe.passes.objectives
from tests.models import two_branches
from tests.passes.placement.test_period_programs import chain_problem
from tvmpipe.cli import cli
from tvmpipe.errors import InputError
from tvmpipe.passes import driver
from tvmpipe.passes.objectives import NAMES, find_objective
from tvmpipe.passes.objectives.latency import OBJECTIVE as LATENCY
from tvmpipe.passes.objectives.throughput import OBJECTIVE as THROUGHPUT
from tvmpipe.passes.options import BuildOptions
from tvmpipe.targets.description.cluster import parse_cluster


@dataclass(frozen=True)
class Figures:
    period_s: float
    latency_s: float


def test_every_file_is_in_the_list() -> None:
    files = {path.stem for path in Path(tvmpipe.passes.objectives.__file__).parent.glob("*.py")}
    assert files == {"__init__", "base", *NAMES}
    assert [find_objective(name).name for name in NAMES] == list(NAMES)


def test_figures_and_ranks() -> None:
    figures = Figures(2.0, 7.0)
    assert (THROUGHPUT.of(figures), LATENCY.of(figures)) == (2.0, 7.0)
    assert THROUGHPUT.ranked_by(figures, 10) == pytest.approx(2.2), "a hundredth for each return"
    assert LATENCY.ranked_by(figures, 10) == 7.0


def test_taking_a_tensor_in_makes_its_transfer_longer_where_one_sample_counts() -> None:
    streamed = replace(chain_problem(2, [1.0, 1.0], [1.0]), taking=np.array([0.5, 0.25]))
    assert THROUGHPUT.model(streamed) is streamed
    alone = LATENCY.model(streamed)
    assert (alone.model, alone.taking.size) == ("makespan", 0)
    before, after = 1 / streamed.bandwidth_bps, 1 / alone.bandwidth_bps
    assert (after - before)[:, 0] == pytest.approx(0.5)
    assert (after - before)[:, 1] == pytest.approx(0.25)
    assert (after - before)[:, 2] == pytest.approx(0.0)


def test_an_unknown_objective_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^objective 'speed' is unknown; allowed: throughput, latency$"):
        find_objective("speed")
    found = CliRunner().invoke(cli, ["plan", "m.onnx", "--cluster", "c.toml", "--objective", "speed"])
    assert found.exit_code == 2
    assert "objective 'speed' is unknown; allowed: throughput, latency" in found.output


def test_an_objective_of_ones_own_is_planned_for() -> None:
    """Both figures together, by the planner of the period: it decides, and its name and figure are in the report."""
    both = replace(
        THROUGHPUT,
        name="both",
        figure="sum",
        of=lambda figures: figures.period_s + figures.latency_s,
        ranked_by=lambda figures, returns: figures.period_s + figures.latency_s,
        search=lambda search: None,
    )
    cluster = parse_cluster("".join(f'[[device]]\nname = "d{i}"\nthreads = 1\n' for i in range(2)))
    planned = driver.plan(driver.front(two_branches()), cluster, BuildOptions(objective=both, time_limit_s=1.0))
    facts = planned.report()
    assert (facts["objective"], facts["figure"]) == ("both", "sum")
    assert facts["figure_s"] == planned.plan.period_s + planned.plan.latency_s
