"""What docs/ promises: the systemd unit is one, and the options and metrics that are named exist."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tvmpipe.cli import cli

DOCS = Path(__file__).parent.parent / "docs"
UNIT = DOCS / "tvmpipe-agent.service"


class _Unit(configparser.RawConfigParser):
    """A unit file: names have capitals, and some may stand twice."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def options_of(command: str) -> set[str]:
    return {name for parameter in cli.commands[command].params for name in parameter.opts}


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
    assert {word for word in words if word.startswith("--")} <= options_of("agent")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/tvmpipe/bin/tvmpipe", sys.executable))
    result = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert complaints == []


def test_the_commands_in_the_documents_exist() -> None:
    for path in DOCS.glob("*.md"):
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(), re.DOTALL):
            for command, arguments in re.findall(r"\btvmpipe (\w+)(.*)", block):
                assert isinstance(cli.commands.get(command), click.Command), command
                used = set(re.findall(r"(?<= )--[a-z-]+", arguments.partition("#")[0]))
                assert used <= options_of(command), command


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
