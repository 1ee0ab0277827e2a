"""The profile store: nothing that was measured is lost, and a primitive is known again."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tvmpipe.errors import InputError
from tvmpipe.passes.workloads import workloads_of
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.cost.model import Work
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.store import profile_store
from tvmpipe.targets.store.profile_store import DeviceFacts, Measurement, ProfileStore, counting

TARGET = find_target("x86-64-v3")
WORK = Work(1e6, 100, 200, 300, ("conv2d", "relu"), "0" * 32, "conv2d", (1, 2, 3, 4, 16), (1, 3, 3, 16))
ROW = Measurement(WORK, 1e-3, 0.9e-3, 1.1e-3, 20, 2e-3, False, "abc", "0.27.0", "2026-01-01T00:00:00Z", "net")


def row(number: int, **changes: object) -> Measurement:
    return replace(ROW, work=replace(WORK, key=f"{number:032x}"), **changes)  # type: ignore[arg-type]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path / "new")
    facts = DeviceFacts(1e11, 2e10, "a processor", "2026-01-01T00:00:00Z")
    assert store.read(TARGET, 1) == []
    store.add(TARGET, 1, facts)
    store.add(TARGET, 1, ROW)
    store.add(TARGET, 2, row(1, reference_s=(1e-3, 2e-3)))
    assert store.read(TARGET, 1) == [ROW]
    assert "reference_s" not in store.path(TARGET, 1).read_text()
    assert store.read(TARGET, 2) == [row(1, reference_s=(1e-3, 2e-3))]
    assert store.device(TARGET, 1) == facts
    assert store.device(TARGET, 2) is None
    assert len(store.targets()) == 2


@pytest.mark.parametrize("kept", [1, 40, 200])
def test_a_torn_write_costs_only_its_own_row(tmp_path: Path, kept: int) -> None:
    store = ProfileStore(tmp_path)
    store.add_all(TARGET, 1, [row(1), row(2)])
    path = store.path(TARGET, 1)
    whole = path.read_bytes()
    store.add(TARGET, 1, row(3))
    torn = path.read_bytes()[: len(whole) + kept]
    path.write_bytes(torn)
    assert store.read(TARGET, 1) == [row(1), row(2)]
    store.add(TARGET, 1, row(4))
    assert store.read(TARGET, 1) == [row(1), row(2), row(4)]


def test_foreign_lines_are_skipped(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.add(TARGET, 1, row(1))
    with store.path(TARGET, 1).open("ab") as file:
        file.write(b'{"v":99,"new":1}\n[]\n{"v":1}\n\xff\xfe\n\n')
    store.add(TARGET, 1, row(2))
    assert store.read(TARGET, 1) == [row(1), row(2)]


def _write_some(folder: Path, writer: int) -> None:
    for number in range(40):
        ProfileStore(folder).add(TARGET, 1, row(1000 * writer + number))


def test_several_writers_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_write_some, [tmp_path] * 3, range(3)))
    keys = sorted(one.work.key for one in ProfileStore(tmp_path).read(TARGET, 1))
    assert keys == sorted(f"{1000 * writer + number:032x}" for writer in range(3) for number in range(40))


def test_the_fastest_measurement_counts() -> None:
    """A disturbed one is an upper bound; where it is the lower one, the other was disturbed without being noticed."""
    quiet, slower = row(1, seconds=2.0, cold_s=2.5), row(1, seconds=3.0, cold_s=3.5)
    slow, fast = row(1, seconds=2.4, cold_s=2.9, busy=True), row(1, seconds=1.0, cold_s=1.5, busy=True)
    for rows in ([quiet, slow, slower], [slower, slow, quiet], [slow, quiet]):
        assert counting(rows) == {quiet.key: quiet}
    assert counting([quiet, fast]) == {quiet.key: replace(fast, busy=False)}
    assert counting([slow, fast]) == {fast.key: fast}
    assert len(counting([quiet, row(1, schedule="other"), row(1, tvm="0.28.0")])) == 3


def test_cold_times_count_by_themselves() -> None:
    first, second = row(1, seconds=2.0, cold_s=4.0), row(1, seconds=2.2, cold_s=3.0)
    (best,) = counting([first, second]).values()
    assert (best.seconds, best.cold_s, best.network_s) == (2.0, 3.0, 3.0)
    (never_less,) = counting([first, row(1, seconds=2.2, cold_s=1.0)]).values()
    assert never_less.cold_s == 2.0
    (warm_only,) = counting([row(1, seconds=2.0, cold_s=None)]).values()
    assert warm_only.cold_s is None


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        ProfileStore(tmp_path / "file").add(TARGET, 1, ROW)


def _convolution(channels: int, name: str) -> onnx.ModelProto:
    """Convolution and ReLU with names of its own; the same weights for the same channels."""
    weight = helper.make_tensor(f"{name}_w", TensorProto.FLOAT, [channels, 3, 3, 3], [0.1] * (channels * 27))
    nodes = [
        helper.make_node("Conv", [f"{name}_x", f"{name}_w"], [f"{name}_c"], name=f"{name}_1", strides=[2, 2]),
        helper.make_node("Relu", [f"{name}_c"], [f"{name}_y"], name=f"{name}_2"),
    ]
    inputs = [helper.make_tensor_value_info(f"{name}_x", TensorProto.FLOAT, [1, 3, 17, 17])]
    outputs = [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, channels, 8, 8])]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=[weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _keys(channels: int, name: str) -> list[str]:
    return [workload.work.key for workload in workloads_of(_convolution(channels, name), name)]


def test_a_key_is_the_same_for_other_names_and_in_another_process() -> None:
    mine = _keys(16, "alpha")
    assert mine == _keys(16, "beta")
    code = "from tests.targets.store.test_profile_store import _keys; print(','.join(_keys(16, 'gamma')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip().splitlines()[-1].split(",") == mine


def test_another_shape_is_another_primitive() -> None:
    assert set(_keys(16, "alpha")).isdisjoint(_keys(32, "alpha")[:1])


@pytest.mark.parametrize(("vendor", "last"), [("AuthenticAMD", "amd"), ("GenuineIntel", "intel"), ("", "intel")])
def test_measurements_of_a_processor_like_this_hosts_count_most(
    monkeypatch: pytest.MonkeyPatch, vendor: str, last: str
) -> None:
    monkeypatch.setattr(profile_store, "_vendor", lambda: vendor)
    folders = profile_store.shipped()
    assert folders[-1].name == last
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        target = find_target(name)
        assert any(len(ProfileStore(folder).read(target, 1)) > 600 for folder in folders)
        known = LearnedCost([ProfileStore(folder) for folder in folders]).usual_tiles_s(target)
        assert known is not None
        assert known[0] == target
