"""The load that a server must bear, on one that bears it and on one that answers wrongly."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from click.testing import CliRunner

from benchmarks.serve_load import main
from tests.generation.fakes import TableModel
from tests.serve.text.running import TOKENIZER, make_model, serving
from tvmpipe.generation.language_model import Logits


class Forgetful(TableModel):
    """With several sequences open it mixes them up."""

    def row(self, tokens: Sequence[int]) -> Logits:
        return super().row([*tokens, 7] if self.open > 1 else tokens)


@pytest.mark.parametrize("right", [True, False])
def test_load(right: bool) -> None:
    options = {"sequences": 4, "delay_s": 0.001, "never": range(4)}
    model = make_model(**options) if right else Forgetful(TOKENIZER.size, **options)  # type: ignore[arg-type]
    with serving(model, queue=8) as server:
        command = [f"http://{server.address}/v1", "--seconds", "1", "--requests", "60", "--tokens", "6", "--json"]
        result = CliRunner().invoke(main, command)
    facts = json.loads(result.stdout)
    assert result.exit_code == (not right), result.output
    assert facts["sequences open in the end"] == 0
    if right:
        assert facts["streams that were right"] > 0
        assert facts["streams that were wrong"] == 0
        assert facts["of 60 at once: right"] >= 12
    else:
        assert facts["streams that were wrong"] > 0
