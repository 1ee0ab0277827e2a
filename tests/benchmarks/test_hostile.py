"""Some hundreds of the mutations of `benchmarks.hostile`, and that it would notice harm, or a door left open."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import benchmarks.hostile.__main__ as hostile
from benchmarks.hostile import knocking, manifests, sandbox, tars, users
from benchmarks.hostile.intrusions import Fault, Plot, carry_out
from benchmarks.hostile.row import Check, Intrusion, Options, Row
from benchmarks.hostile.sandbox import Attempt, try_all
from tests.runtime.rpc_server import KEY, OTHER, guarded_server
from tests.runtime.stock import stock_server
from tests.runtime.strangers import SHAKE, needs_root, run_as_other
from tests.waiting import PATIENCE_S
from tvmpipe.errors import BundleError
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.security import zap as zap
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.sockets import Sockets
from tvmpipe.runtime.transport.tracker import Tracker


@pytest.mark.parametrize("check", [manifests.check, tars.check], ids=["manifests", "tars"])
def test_mutations_end_in_success_or_a_sentence(check: Check) -> None:
    for row in check(Options(mutations=250, seed=1)):
        assert isinstance(row, Row)
        assert row.faults == []
        assert row.tried == 250
        assert row.accepted + row.refused == 250
        assert row.accepted >= 2, "mutations that break everything find nothing"


def test_harm_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "LONGEST_S", 5.0)
    kept = []

    def act(number: int) -> None:
        if number == 1:
            raise BundleError("it is damaged")
        if number == 2:
            raise KeyError("plans")
        if number == 3:
            time.sleep(30)
        if number == 4:
            os._exit(7)
        if number == 5:
            (tmp_path / "large").write_bytes(bytes(5000))
        if number == 6:
            kept.append(bytearray(300 << 20))
            kept.clear()
        if number == 7:
            raise BundleError("two\nlines")
        if number == 8:
            raise RecursionError

    row = try_all("door", lambda number: Attempt(lambda: act(number), 1000), Options(mutations=10))
    assert (row.tried, row.accepted, row.refused) == (10, 2, 1)
    assert [fault.split(":")[0] for fault in row.faults] == [f"mutation {number}" for number in range(2, 9)]
    for part, fault in zip(
        ("KeyError", "longer", "code 7", "5000 bytes", "memory", "no sentence"), row.faults, strict=False
    ):
        assert part in fault


def test_a_stranger_who_is_not_kept_out_is_a_fault() -> None:
    def fail(_: int) -> str:
        raise Fault("it was let in")

    def stumble(_: int) -> str:
        raise OSError("no\nroute")

    plots = [Plot("a", "to try", "turned away", act) for act in (str, fail, stumble)]
    kept, let_in, stumbled = carry_out(plots, "", lambda: contextlib.nullcontext(7))
    assert (kept.result, kept.happened, list(kept.faults)) == ("ok", "7", [])
    assert (let_in.result, list(let_in.faults)) == ("FAULT", ["it was let in"])
    assert (stumbled.result, stumbled.happened) == ("FAULT", "OSError: no\\nroute")


def test_what_cannot_be_tried_here_says_why() -> None:
    def never() -> contextlib.AbstractContextManager[int]:
        raise AssertionError("nothing is to be made ready")

    (one,) = carry_out([Plot("a", "to try", "turned away", str)], "only root can", never)
    assert (one.result, one.happened, list(one.faults)) == ("not tried", "only root can", [])


@needs_root
@pytest.mark.parametrize("door", ["stage link (PULL)", "status port (ROUTER)"])
def test_a_door_that_stands_open_is_noticed(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (plot,) = (plot for plot in users.PLOTS if plot.door == door)
    nowhere: Any = contextlib.nullcontext  # it needs nothing of the scene
    (kept,) = carry_out([plot], "", nowhere)
    assert kept.result == "ok", kept.happened
    monkeypatch.setattr(zap, "check_connections", lambda **_: None)
    (open_now,) = carry_out([plot], "", nowhere)
    assert open_now.faults == ["the message of the other user came in"]


@needs_root
def test_a_server_that_serves_everybody_is_noticed(agents: LocalCluster) -> None:
    """A stock one: another user needs nothing but the match key."""
    with stock_server(agents.tracker, "stock"):
        with Tracker(agents.tracker) as tracker:
            grant = tracker.request("stock", PATIENCE_S)
        assert run_as_other(f"print(shake({grant.port}, {grant.match_key!r}))", SHAKE) == "let in"


def test_knocking_at_zeromq_tells_who_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "_KNOCK_S", 1.0)
    key, other = ClusterKey(b"1" * 32), ClusterKey(b"2" * 32)
    with Sockets(key) as sockets:
        inbox, port = sockets.pull("127.0.0.1")
        assert knocking.zeromq("127.0.0.1", port, key.secret.hex()) == "let in"
        assert knocking.zeromq("127.0.0.1", port, key.secret.hex(), impostor=True, message="x") == "turned away"
        assert knocking.zeromq("127.0.0.1", port, other.secret.hex(), message="x") == "turned away"
        assert knocking.zeromq("127.0.0.1", port, message="x") == "turned away"
        assert not inbox.poll(0)


def test_knocking_at_a_tls_server_tells_who_is_let_in(tmp_path: Path) -> None:
    with guarded_server(tmp_path) as device:
        assert knocking.tls("127.0.0.1", device.port, KEY.secret.hex()) == "let in"
        assert knocking.tls("127.0.0.1", device.port, OTHER.secret.hex()) == "turned away"


def test_the_exit_code_tells_of_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    for result, code in (("ok", 0), ("not tried", 0), ("FAULT", 1)):
        line = Intrusion("a door", "to try", "turned away", "something", result)
        monkeypatch.setattr(hostile, "CHECKS", {"users": lambda _, line=line: iter([line])})
        done = CliRunner().invoke(hostile.main, [])
        assert done.exit_code == code
        assert result in done.stdout
