"""`tvmpipe agent`'s options that are more than what the agent is handed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tvmpipe.cli import cli
from tvmpipe.commands.agent import emulating
from tvmpipe.commands.reference_loop import make_reference_loop, request_reference_loop
from tvmpipe.errors import InputError
from tvmpipe.passes.planning.default_cost import default_cost
from tvmpipe.runtime.emulation.speed_probe import SpeedProbe
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import parse_cluster

x86 = pytest.mark.skipif(find_target("native").architecture != "x86_64", reason="only x86 has measurements")


@x86
def test_speed_of_this_machine(tmp_path: Path) -> None:
    """Shipped measurements say how long the loop takes, and it runs here."""
    loop = request_reference_loop("x86-64-v2", None, tmp_path)
    assert loop.target == "x86-64-v2"
    assert 1e-4 < loop.usual_s < 1e-1
    # This machine is neither a hundred times slower nor faster than the one that was measured.
    assert 0.01 < SpeedProbe(loop).slower() < 100


def test_nearest_measurements_count(tmp_path: Path) -> None:
    """A processor that nothing is shipped of is as fast as the nearest that something is."""
    known, unknown = find_target("x86-64-v4"), replace(find_target("x86-64-v4"), name="other", cpu="znver5")
    cost = default_cost(tmp_path)
    found, usual = cost.usual_tiles_s(known), cost.usual_tiles_s(unknown)
    assert found is not None
    assert usual is not None
    assert (usual[0].cpu, usual[1]) == (known.cpu, found[1])
    assert cost.usual_tiles_s(find_target("pi4")) is None


def test_options_of_an_emulated_device(tmp_path: Path) -> None:
    text = '[[device]]\nname = "a"\ntarget = "{}"\nthreads = 1\nslowdown = {}\n'
    known, unknown, fast = (
        parse_cluster(text.format(*one)).devices[0] for one in (("x86-64-v3", 8), ("pi4", 8), ("x86-64-v3", 1))
    )
    assert emulating(known) == ("--slowdown", "8.0", "--like", "x86-64-v3")
    assert emulating(known, tmp_path)[-2:] == ("--profiles", str(tmp_path))
    assert emulating(unknown) == ("--slowdown", "8.0")
    assert emulating(fast) == ("--slowdown", "1.0")


def test_machines_that_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was measured of a machine like pi4"):
        make_reference_loop("pi4", None, tmp_path)
    arguments = ["agent", "--tracker", "127.0.0.1:1", "--key", "a", "--like"]
    for more, sentence in (
        (["x86-64-v3"], "--like says what --slowdown is relative to; give both"),
        (["x86", "--slowdown", "2"], "target 'x86' is not known; allowed:"),
    ):
        result = CliRunner().invoke(cli, [*arguments, *more])
        assert result.exit_code == 1
        assert sentence in result.output
    assert not list(tmp_path.iterdir())
