"""What must outlast what, and why a lost device is noticed within two seconds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tvmpipe.runtime
from tests.runtime.head.test_state_machine import running
from tvmpipe.runtime.head import events
from tvmpipe.runtime.head.options import ConnectOptions, Limits
from tvmpipe.runtime.transport import deadlines as d

RUNTIME = Path(tvmpipe.runtime.__file__).parent

MEASURES = {
    "BUCKETS_S",  # of a histogram
    "_BUFFERED_S",  # of a bandwidth, as a size
    "_MESSAGE_S",  # what one costs
    "_QUICK_S",  # what takes less lets more be under way
    "_RATE_WINDOW_S",  # over which a rate is the mean
    "_SLOW_S",  # a measurement that took so long is not repeated
    "_STREAM_S",  # the same
    "_TRIPS_S",  # the same
}
"""Names that end as deadlines do, and are figures of another kind."""


def constants(path: Path) -> dict[str, ast.expr]:
    """What a module gives names in capitals."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            found[node.targets[0].id] = node.value
    return found


def test_they_stand_in_their_order() -> None:
    names = list(constants(Path(str(d.__file__))))
    values = [getattr(d, name) for name in names]
    assert len(names) > 50
    assert values == sorted(values)


def test_each_is_used() -> None:
    text = "".join(path.read_text() for path in RUNTIME.rglob("*.py") if path.name != "deadlines.py")
    promised = {"NOTICED_S", "REGISTER_AGAIN_S"}  # what the others are held to
    assert [name for name in constants(Path(str(d.__file__))) if f"deadlines.{name}" not in text] == sorted(
        promised, key=lambda name: float(getattr(d, name))
    )


def test_there_are_no_others() -> None:
    """Neither as a constant of another module of the runtime, nor as a number where something waits."""
    waits = {"join", "wait", "wait_for", "sleep", "poll", "settimeout"}
    for path in RUNTIME.rglob("*.py"):
        if path.name == "deadlines.py":
            continue
        own = {name for name in constants(path) if name.endswith(("_S", "_MS", "_SECONDS"))}
        assert own <= MEASURES, f"{path.name} has deadlines of its own: {own - MEASURES}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in waits:
                given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "timeout")]
                numbers = [one.value for one in given if isinstance(one, ast.Constant) and one.value]
                assert not numbers, f"{path.name}:{node.lineno} waits for {numbers}"


def test_a_lost_device_is_noticed_within_two_seconds() -> None:
    """Its last heartbeat came just before it fell silent, and the head's clock has just ticked when it is overdue."""
    latest_s = max(d.TICK_S + d.LINGER_S, d.LATEST_TICK_S)
    assert d.NOTICED_S == 2.0
    assert d.SILENCE_S + latest_s < d.NOTICED_S
    # And nobody is blamed for a heartbeat that is late: five may be missed in a row.
    assert d.SILENCE_S > 6 * d.HEARTBEAT_S


@pytest.mark.parametrize("tick_s", [d.TICK_S, d.LATEST_TICK_S])
def test_the_state_machine_keeps_that_promise(tick_s: float) -> None:
    """Whenever between two ticks the device falls silent."""
    for part in range(10):
        machine = running(failover=False)
        silent_s = 1.0 + part / 10 * tick_s
        now_s = 0.0
        while machine.phase == "running":
            now_s += tick_s
            assert now_s < silent_s + d.NOTICED_S, "the loss was not noticed"
            for name in ("a", "b", "c"):
                machine.handle(events.Seen(1, name, None, min(now_s, silent_s) if name == "b" else now_s))
            machine.handle(events.Tick(now_s))
        assert list(machine.lost) == ["b"]
        assert now_s > silent_s + 6 * d.HEARTBEAT_S


def test_what_must_outlast_what() -> None:
    # A head that lives never loses a device: it has noticed before the device gives it up, and renews in time.
    assert d.NOTICED_S < d.LEASE_S
    assert 3 * d.RENEW_S + d.RECEIVE_S + d.CLAIM_POLL_S < d.LEASE_S
    assert d.LEASE_S <= d.WAIT_S
    # A stage link that broke is tried several times before it is given up.
    assert 3 * d.LONGEST_RECONNECT_S < d.LINK_S
    assert d.RECONNECT_S < d.LONGEST_RECONNECT_S
    assert d.HANDSHAKE_S <= d.LINK_S
    # What ends others first waits for them.
    assert d.INTERRUPT_S + d.UNDO_S + d.CHANGE_OVER_S < d.ATTEMPT_S
    assert d.BACK_S < d.JOIN_S
    assert 2 * 2 * d.LAST_WORDS_S < d.MANAGER_S
    assert d.LAST_WORDS_S < d.AGENT_ANSWER_S
    assert d.RELEASE_S < d.LEASE_S
    # TVM's server registers anew after a while of its own, for which whoever wants that device must wait.
    assert max(d.REGISTER_AGAIN_S, d.NOTICED_S) < min(d.CONNECT_S, d.FREE_S, d.PAIRS_S, d.SAME_AGENT_S)
    # Counts are told with heartbeats.
    assert 2 * d.HEARTBEAT_S < d.COUNTS_S
    assert d.REPORT_S % d.HEARTBEAT_S == 0
    # A device that comes and goes.
    assert d.SILENCE_S < d.RETURN_S < d.LONGEST_RETURN_S < d.FORGIVEN_S
    assert d.NOTICED_S < d.RECONNECT_DEVICE_S < d.RECOVER_S
    # Measurements of a link.
    assert d.DIAL_S < d.ECHO_S < d.TRANSFER_S < d.LINK_TIMES_S


def test_what_users_choose_begins_with_these() -> None:
    assert Limits() == Limits(d.CONNECT_S, d.WAIT_S, d.STAGE_S, d.START_S, None)
    assert ConnectOptions().recover_s == d.RECONNECT_DEVICE_S
    assert ConnectOptions(failover=True).recover_s == d.RECOVER_S
    assert ConnectOptions(limits=Limits(recover_s=0.0)).recover_s == 0.0
