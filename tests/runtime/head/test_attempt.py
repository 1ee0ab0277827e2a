"""Openings that end when they are told to."""

from __future__ import annotations

import threading

import pytest

from tests.waiting import no_hang, wait_until
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.head.attempt import Attempt, Attempts
from tvmpipe.runtime.transport import deadlines


class Call:
    """A call to a device that does not answer."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def interrupt(self) -> None:
        self.ended.set()


def hanging(attempts: Attempts, name: str, call: Call, errors: list[str]) -> threading.Thread:
    """A thread that waits in a call, and then sees that it was given up."""

    def work() -> None:
        with attempts.begin(name) as attempt:
            try:
                with attempt.waits_on(call):
                    call.ended.wait()
                    attempt.check()
            except DeviceError as error:
                errors.append(str(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_those_of_one_name_are_given_up() -> None:
    attempts, errors = Attempts(), list[str]()
    calls = {name: Call() for name in ("open", "prepare")}
    threads = {name: hanging(attempts, name, call, errors) for name, call in calls.items()}
    wait_until(lambda: len(attempts._names) == 2)
    attempts.give_up("prepare", "another plan is opened")
    with no_hang():
        threads["prepare"].join()
    assert errors == ["another plan is opened"]
    assert not calls["open"].ended.is_set()
    assert attempts.close()
    with no_hang():
        threads["open"].join()
    assert errors == ["another plan is opened", "the pipeline was closed"]


def test_nothing_begins_after_the_end() -> None:
    attempts = Attempts()
    assert attempts.close()
    with attempts.begin("open") as attempt, pytest.raises(DeviceError, match="the pipeline was closed"):
        attempt.pause(60.0)


def test_one_that_cannot_be_interrupted_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "ATTEMPT_S", 0.1)
    attempts = Attempts()
    go_on = threading.Event()

    def work() -> None:
        with attempts.begin("open"):
            go_on.wait()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until(lambda: len(attempts._names) == 1)
    assert not attempts.close()
    go_on.set()
    with no_hang():
        thread.join()


def test_a_pause_ends_at_once() -> None:
    attempt = Attempt()
    threading.Timer(0.05, attempt.give_up, ["another device failed"]).start()
    with no_hang(), pytest.raises(DeviceError, match="another device failed"):
        attempt.pause(3600.0)
