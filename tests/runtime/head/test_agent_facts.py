"""What an agent says of itself: all that this version's tell passes, anything else is one sentence."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import tvmpipe
from tests.runtime.fake_agent import fake_agent
from tests.runtime.manifests import stage
from tests.runtime.processes import agent_facts
from tvmpipe.bundle import Bundle
from tvmpipe.cli import cli
from tvmpipe.commands import top
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device.totals import StageCount
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.runtime.head.agent_client import AgentClient
from tvmpipe.runtime.head.agent_facts import check_agent_facts
from tvmpipe.runtime.tools.cluster_status import DeviceReport
from tvmpipe.runtime.transport.versions import own_versions
from tvmpipe.text import clean

COUNTS = StageCount(3, 0.1, 0.2, 0.3).to_list()

FACTS: dict[str, Any] = {
    **own_versions(),
    "machine": "x86_64",
    "threads": 2,
    "memory_bytes": 1 << 30,
    "pid": 7,
    "link_address": "board.lan:9200",
    "address_why": "it was told to",
    "runners": ["llvm"],
    "features": [],
    "emulated": {"slowdown": 4.0, "bandwidth_bps": None, "latency_s": 0.0, "like": None},
    "link_port": 9200,
    "beside_port": 9201,
    "held_by": "somebody@desk (process 7)",
    "held_s": 1.5,
    "host": "ready",
    "host_message": "",
    "host_pid": 8,
    "status": {
        "session": "0" * 16,
        "device": "alpha",
        "sent_s": 1.0,
        "counts": {"s0": COUNTS},
        "busy": ["s0", 1, 0.1],
        "cut": [],
        "failure": None,
        "refused": 0,
        "memory_bytes": 100,
        "last": False,
        "unlinked": [],
        "age_s": 0.2,
    },
    "samples_per_s": {"s0": 2.0},
    "totals": {"sessions": 1, "refused": 0, "stages": [{"stage": "s0", "device": "alpha", "counts": COUNTS}]},
    "server_up": True,
    "server_starts": 1,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every value in there, by the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def test_what_an_agent_of_this_version_tells_stays_as_it_is(agents: LocalCluster) -> None:
    told = {key: value for key, value in check_agent_facts(FACTS).to_dict().items() if key != "status"}
    assert told == {key: value for key, value in FACTS.items() if key != "status"}
    assert check_agent_facts(FACTS).to_dict()["status"].items() >= FACTS["status"].items()
    assert check_agent_facts({**FACTS, "more": 1}) == check_agent_facts(FACTS)
    idle = agent_facts(agents, "alpha")
    assert idle.keys() == FACTS.keys()
    assert check_agent_facts(idle).to_dict() == idle


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(places(FACTS)), st.just("nothing") | _anything)
def test_whatever_is_told_is_shown_or_refused_in_one_sentence(place: tuple[Any, ...], other: Any) -> None:
    told = copy.deepcopy(FACTS)
    if not place:
        told = other
    else:
        *path, last = place
        inner = told
        for key in path:
            inner = inner[key]
        if other == "nothing":
            del inner[last]
        else:
            inner[last] = other
    try:
        facts = check_agent_facts(told)
    except ValueError as error:
        sentence = str(error)
    else:
        sentence = ""
    assert clean(sentence) == sentence, "in one line, with nothing to obey in it"
    if sentence:
        return
    report = DeviceReport("a", "127.0.0.1:1", "agent", facts=facts)
    top._row(top._facts(report))
    json.dumps(facts.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({}, "tvmpipe: Field required"),
        ({**FACTS, "threads": "many"}, "threads: "),
        ({**FACTS, "link_port": 70000}, "link_port: "),
        ({**FACTS, "link_address": "board"}, "link_address: .*is not of the form HOST:PORT"),
        ({**FACTS, "held_s": None}, "held_by and held_s go together"),
        ({**FACTS, "held_s": float("nan")}, "held_s: "),
        ({**FACTS, "memory_bytes": 10**400}, "memory_bytes: "),
        ({**FACTS, "status": {**FACTS["status"], "counts": {"\x1b[2J": []}}}, r"status\.counts\.\\x1b\[2J\."),
    ],
)
def test_what_is_wrong_is_named(told: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        check_agent_facts(told)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("{}", "(tvmpipe: Field required)"),
        (json.dumps({**FACTS, "threads": None}), "(threads: Input should be a valid integer)"),
        ("[]", "answers with what is no JSON object"),
    ],
    ids=["says nothing", "no threads", "no object"],
)
def test_one_that_passes_for_an_agent_ends_nothing(
    answer: str, why: str, agents: LocalCluster, chain_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "answer").write_text(answer)
    sentence = "it is of another version or no tvmpipe agent"
    with contextlib.ExitStack() as stack:
        stack.enter_context(fake_agent(agents.tracker, "fake", tmp_path / "answer"))
        listed = CliRunner().invoke(cli, ["devices", "--tracker", agents.tracker])
        assert listed.exit_code == 0
        shown = CliRunner().invoke(cli, ["top", "--tracker", agents.tracker, "--once", "--json"])
        assert shown.exit_code == 0, shown.output
        (fake,) = (one for one in json.loads(shown.stdout)["devices"] if one["key"] == "fake")
        assert fake["kind"] == "silent"
        assert why in fake["message"]
        assert sentence in fake["message"]
        examined = CliRunner().invoke(cli, ["doctor", "--tracker", agents.tracker, "--key", "fake", "--json"])
        assert examined.exit_code == 4, examined.output
        (step,) = (one for one in json.loads(examined.stdout) if one["result"] == "failed")
        assert step["name"] == "agent"
        assert sentence in step["message"]
        device = chain_bundle.manifest.devices[0]
        renamed = device.model_copy(update={"key": "fake"})
        others = chain_bundle.manifest.devices[1:]
        asked = Bundle(chain_bundle.root, chain_bundle.manifest.model_copy(update={"devices": (renamed, *others)}))
        with pytest.raises(DeviceError, match=sentence):
            tvmpipe.connect(asked, agents.tracker, connect_timeout_s=10)


def test_states_count_as_memory_that_a_device_needs() -> None:
    """Before anything is sent there, and not when it has read the weights."""
    client: Any = object.__new__(AgentClient)
    client.session = SimpleNamespace(device=SimpleNamespace(name="beta", triple="x86_64-linux-gnu"))
    client.facts = SimpleNamespace(machine="x86_64", runners=["llvm"], memory_bytes=2048)
    one = stage("s0", "beta", [0], [1]).model_copy(update={"activation_bytes": 1024})
    client.check([one], 1024)
    with pytest.raises(
        DeviceError,
        match=r"device beta offers 2\.0 KiB of memory, its stages need 3\.0 KiB, 2\.0 KiB of them for the states",
    ):
        client.check([one], 2048)
