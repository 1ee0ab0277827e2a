"""A plan file in which a key stands twice is a mistake, and not its second half."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tvmpipe.errors import PlanError
from tvmpipe.passes.planning.plan import read_left
from tvmpipe.passes.planning.unique_keys import load_yaml


def test_what_stands_once_is_read_as_ever() -> None:
    text = "placement:\n  a: [pi, desk]\n  b: pi\nformat: 1\nempty:\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("base: &base {a: 1}\nmore:\n  <<: *base\n  b: 2\n")["more"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("placement:\n  a: pi\n  b: pi\n  a: desk\n", "'a' stands in line 2 and again in line 4"),
        ("placement:\n  a: pi\nplacement:\n  a: desk\n", "'placement' stands in line 1 and again in line 3"),
    ],
)
def test_what_stands_twice_is_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=f"plan file {path} cannot be read: {what}; one of them must go"):
        read_left(path)
