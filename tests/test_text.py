"""Names that others chose, on a terminal and in a page: shown as they are, obeyed by nobody."""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from rich.text import Text
from tvm.rpc import base

import tvmpipe
from tests.runtime.fakes import unused_port
from tvmpipe.cli import cli
from tvmpipe.console import PlainConsole, PlainTable
from tvmpipe.runtime.emulation.local_cluster import local_cluster
from tvmpipe.text import PlainFormatter, clean

HOSTILE = "[/b]<script>[link=javascript:alert(1)]\x1b]0;owned\x07\x9b2J[::1] :smile:\u202e"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def invoke(*arguments: object) -> Result:
    """A command in this process; what it raises is not caught."""
    result = CliRunner().invoke(cli, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shown(*things: object) -> str:
    console = PlainConsole(file=io.StringIO(), width=400)
    for thing in things:
        console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(st.text(st.characters()))
def test_clean_spells_out_what_is_obeyed_and_changes_nothing_else(text: str) -> None:
    cleaned = clean(text)
    assert not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in cleaned)
    kept = [one for one in text if clean(one) == one]
    assert [one for one in kept if not one.isprintable() and unicodedata.category(one)[0] not in "CZ"] == []
    assert clean(cleaned) == cleaned
    cleaned.encode()  # a file takes it
    if text.isprintable():
        assert cleaned == text


@given(st.text(st.characters()))
def test_every_way_to_a_console(text: str) -> None:
    table = PlainTable(text, title=text)
    table.add_row(text)
    page = shown(text, Text(text), table)
    assert OBEYED.search(page) is None
    page.encode()


def test_markup_links_and_emoji_are_text() -> None:
    table = PlainTable("[bold]column[/]", title="[::1]")
    table.add_row("[link=javascript:alert(1)]x[/link] :smile: [/b]")
    console = PlainConsole(record=True, file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    console.print("[::1] [red]")
    console.print(table)
    page = console.export_html(inline_styles=True)
    assert "<a" not in page
    for text in ("[::1] [red]", "[link=javascript:alert(1)]x[/link] :smile: [/b]", "[bold]column[/]"):
        assert text in page


def test_log_lines() -> None:
    import logging

    record = logging.LogRecord("x", logging.ERROR, "", 0, "refused %s", (HOSTILE,), None)
    assert OBEYED.search(PlainFormatter("%(message)s").format(record)) is None


def hostile_model(folder: Path) -> Path:
    nodes = [
        helper.make_node("Relu", ["a::x/0"], ["<b>&\"'"], name="<img src=x onerror=alert(1)>"),
        helper.make_node("Exp", ["<b>&\"'"], [HOSTILE], name="../../etc/passwd"),
    ]
    graph = helper.make_graph(
        nodes,
        HOSTILE,
        [helper.make_tensor_value_info("a::x/0", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info(HOSTILE, TensorProto.FLOAT, [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = Path(os.fsdecode(os.fsencode(folder) + b"/[link=javascript:alert(1)]<script>q\x1b[2J\xff.onnx"))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("command", ["show", "plan", "explain", "compile"])
def test_a_model_that_is_called_so(command: str, tmp_path: Path, cluster_path: Path) -> None:
    model = hostile_model(tmp_path)
    options: list[object] = [] if command == "show" else ["--cluster", cluster_path]
    if command == "compile":
        options += ["-o", tmp_path / "[bundle].tvmpipe"]
    result = invoke(command, model, *options)
    assert result.exit_code == 0, result.output
    assert OBEYED.search(result.output) is None
    assert "[link=javascript:alert(1)]<script>q\\x1b[2J\\udcff" in result.output
    if command == "compile":
        page = (tmp_path / "[bundle].tvmpipe" / "report.html").read_text()
        assert "<script" not in page
        assert "<a" not in page
        assert OBEYED.search(page) is None
        loaded = tvmpipe.load(tmp_path / "[bundle].tvmpipe")
        assert [spec.name for spec in loaded.manifest.model.outputs] == [HOSTILE]


def test_a_graph_that_is_called_so(tmp_path: Path, cluster_path: Path) -> None:
    bundle = tvmpipe.build(onnx.load(str(hostile_model(tmp_path))), cluster_path)
    page = (bundle.root / "report.html").read_text()
    assert "<script" not in page
    assert "<a" not in page
    assert OBEYED.search(page) is None


def test_errors_are_one_clean_line(tmp_path: Path) -> None:
    result = invoke("show", tmp_path / f"no\n{os.fsdecode(bytes([255]))}[/b]\x1b[2J.onnx")
    assert result.exit_code == 1
    assert len(re.findall("^tvmpipe: error: .*exist$", result.output, re.MULTILINE)) == 1
    assert OBEYED.search(result.output) is None


@contextmanager
def registered(tracker: str, *entries: Any) -> Iterator[None]:
    """Servers that nobody runs, as they tell a tracker about themselves."""
    host, _, port = tracker.rpartition(":")
    connections = []
    for entry in entries:
        connection = socket.create_connection((host, int(port)), timeout=10)
        connections.append(connection)
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        base.recvall(connection, 4)
        base.sendjson(connection, [base.TrackerCode.UPDATE_INFO, entry])
        assert base.recvjson(connection) == base.TrackerCode.SUCCESS
        name = entry["key"].partition(":")[2]
        if name:
            base.sendjson(connection, [base.TrackerCode.PUT, name, [unused_port(), f"{name}:0.5"], "127.0.0.1"])
            base.recvjson(connection)
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


def test_strangers_at_a_tracker(tmp_path: Path) -> None:
    """A key of markup, an address of escape sequences, and what is no registration at all."""
    with local_cluster([], store=tmp_path) as cluster:
        entries = (
            {"key": f"server:{HOSTILE}", "addr": ["\x1b[2J[/b]", 1]},
            {"key": "server", "addr": ["", []]},
            {"key": "server:lame", "addr": [1, 2, 3]},
            {"key": "server:deep", "addr": [{"[/b]": "\x1b[2J"}, None]},
        )
        with registered(cluster.tracker, *entries):
            for command, code in (("devices", 0), ("top", 0), ("doctor", 4)):
                result = invoke(command, "--tracker", cluster.tracker, *(["--once"] if command == "top" else []))
                assert result.exit_code == code, result.output
                assert "[/b]<script>" in result.output
                assert OBEYED.search(result.output) is None
