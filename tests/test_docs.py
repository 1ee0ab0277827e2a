"""What README.md, docs/ and their like promise: commands, options, files, Python and figures are there."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import tvmpipe
from benchmarks.readme_table import filled
from tvmpipe.cli import cli
from tvmpipe.targets.description.cluster import parse_cluster

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
UNIT = DOCS / "tvmpipe-agent.service"
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
LARGEST_README_BYTES = 6000
BENCHMARKS = "".join(path.read_text() for path in sorted((ROOT / "benchmarks").rglob("*.py")))

CALLED: dict[str, Callable[..., Any]] = {
    "build": tvmpipe.build,
    "connect": tvmpipe.connect,
    "load": tvmpipe.load,
}

CLIENTS = {"tritonclient"}
"""Packages of those who use what is served, which need not be installed here."""

EXAMPLES = {"scan", "sizes", "celu", "fold_scan", "energy", "numpy_code", "tokens"}
"""What the pages on contributing add; there is none of it."""

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


class _Unit(configparser.RawConfigParser):
    """A unit file: names have capitals, and some may stand twice."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path: Path) -> Iterator[tuple[str, str]]:
    """Each call of tvmpipe in a block or between backticks: (command, what follows it)."""
    lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for line in (*lines, *re.findall(r"`([^`]+)`", prose)):
        for call in re.split(r"[;|]|&&", line.partition(" #")[0]):
            found = re.match(r"\s*(?:ssh \S+ |do )?(?:\S*/)?tvmpipe ([a-z]+)\b(.*)", call, re.DOTALL)
            if found:
                yield found[1], found[2]


@documents
def test_commands_and_options_exist(path: Path) -> None:
    for name, arguments in commands(path):
        if name in EXAMPLES:
            continue
        command = cli.commands.get(name)
        assert command is not None, name
        used = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", arguments))
        assert used <= options_of(command), name


@documents
def test_options_between_backticks_exist(path: Path) -> None:
    known = set().union(*(options_of(command) for command in cli.commands.values()))
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`(--[a-z-]+)", prose):
        assert name in known or f'"{name}"' in BENCHMARKS, name


@documents
def test_modules_and_files_exist(path: Path) -> None:
    text = path.read_text()
    for module in re.findall(r"python -m (benchmarks(?:\.[a-z_]+)+)", text):
        importlib.util.find_spec(module) or pytest.fail(module)
    for name in re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|md|txt|svg|toml|service))(?:::\w+)?`", text):
        example = {Path(name).stem.removeprefix("test_"), *Path(name).parts} & EXAMPLES
        assert example or any((folder / name).exists() for folder in (ROOT, ROOT / "tvmpipe", ROOT / "tests")), name


@documents
def test_python_compiles_and_what_it_calls_exists(path: Path) -> None:
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] not in CLIENTS:
                        importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tvmpipe":
                assert hasattr(tvmpipe, node.attr), node.attr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLED:
                parameters = inspect.signature(CALLED[node.func.attr]).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(parameters)


@documents
def test_cluster_files_and_plans_are_read(path: Path) -> None:
    for block in blocks(path, "toml"):
        if "[[device]]" in block:
            parse_cluster(block)
    for block in blocks(path, "yaml"):
        yaml.safe_load(block)


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= LARGEST_README_BYTES


def test_the_readmes_table_is_that_of_the_results() -> None:
    text = README.read_text()
    assert filled(text) == text, "run python -m benchmarks.readme_table"
    assert "| resnet50 | " in text


@documents
def test_no_table_of_figures_is_typed(path: Path) -> None:
    """Measured figures are files in benchmarks/results/; the README's table is made from them, faults are history."""
    figure = re.compile(r"^\|.*\|\s*[<>]?[\d.,]+ ?(?:ms|us|s|%|x|[kMG]B/s|samples/s)\s*\|", re.MULTILINE)
    assert figure.findall(path.read_text()) == []


def test_the_memory_of_an_idle_device_is_what_a_test_allows() -> None:
    from tests.runtime.device.test_resident_memory import MOST_HOST_BYTES, MOST_IDLE_BYTES

    text = " ".join((DOCS / "devices.md").read_text().split())
    assert f"less than {MOST_IDLE_BYTES // 1_000_000} MB together" in text
    assert f"less than {MOST_HOST_BYTES // 1_000_000} MB and the weights" in text


def test_what_may_be_deleted_on_a_device_is_what_was_tried() -> None:
    from benchmarks.footprint import UNUSED

    assert f"rm -r {' '.join(UNUSED)}\n" in (DOCS / "devices.md").read_text()


def test_the_unit_is_hardened_and_starts_again() -> None:
    unit = _Unit(strict=False)
    unit.read_string(UNIT.read_text())
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    wanted = {
        "Restart": "always",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "StateDirectory": "tvmpipe",
        "EnvironmentFile": "/etc/tvmpipe/agent.env",
        "User": "tvmpipe",
    }
    assert {name: service[name] for name in wanted} == wanted
    words = service["ExecStart"].split()
    assert words[1] == "agent"
    assert {word for word in words if word.startswith("--")} <= options_of(cli.commands["agent"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/tvmpipe/bin/tvmpipe", sys.executable))
    result = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert complaints == []


def test_the_tests_in_the_documents_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (DOCS / "faults.md").read_text())
    assert len(named) > 60
    for file, test in named:
        source = (DOCS.parent / "tests" / file).read_text()
        assert f"def {test or 'test_'}" in source, f"{file}::{test}"


def test_the_metrics_in_the_documents_are_those_there_are() -> None:
    from tvmpipe.runtime.device.metrics import AgentCollector

    info = {
        "tvmpipe": "1", "apache-tvm": "1", "machine": "m", "emulated": None, "totals": {
            "sessions": 0, "refused": 0, "stages": []
        }, "server_starts": 1, "server_up": True, "held_by": None, "host": None, "memory_bytes": 1,
        "status": {"memory_bytes": 1, "age_s": 0.0},
    }  # fmt: skip
    suffix = {"counter": "_total", "info": "_info"}
    names = {metric.name + suffix.get(metric.type, "") for metric in AgentCollector(lambda: info).collect()}
    assert set(re.findall(r"`(tvmpipe_\w+)`", (DOCS / "devices.md").read_text())) == names
