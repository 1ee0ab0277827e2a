"""`tvmpipe demo` on a small model: what it writes and what it says of the results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from onnx import numpy_helper

from tests.models import chain, save
from tvmpipe.cli import cli
from tvmpipe.runtime.emulation.local_cluster import local_cluster  # noqa: F401  # the demo starts one: such tests are dealt out together


def test_the_demo_compares_every_result(tmp_path: Path) -> None:
    """Of a model that answers zeros that proves nothing, which is a warning."""
    model = chain(2, 64)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros((64, 64), np.float32), "w1"))
    arguments = ["demo", str(save(model, tmp_path)), "--samples", "4", "-o", str(tmp_path / "demo"), "--json"]
    (tmp_path / "demo").mkdir()
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["comparison"]["verdict"] == "proves nothing"
    assert facts["samples"] == 4
    assert "tvmpipe: warning: the comparison proves nothing: output 'y' is zero everywhere" in result.stderr
    assert (tmp_path / "demo" / "model.tvmpipe" / "manifest.json").is_file()
