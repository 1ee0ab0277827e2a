"""What a device keeps: whole, as it was sent, for nobody else, and no more than it may."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvmpipe
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError
from tvmpipe.runtime.device.blob_store import DamagedFileError, Store, StoreFullError
from tvmpipe.runtime.device.load_stages import LoadedStages
from tvmpipe.runtime.device.stored_file import StoredFile, stored_files
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.runtime.transport.chunks import CHUNK_BYTES, chunk_count

X = {"x": np.ones((4, 256), np.float32)}
MIB = 1 << 20


def wanted(content: bytes, suffix: str = ".so") -> StoredFile:
    return StoredFile(hashlib.sha256(content).hexdigest(), suffix, len(content))


def put(store: Store, content: bytes) -> Path:
    """Keep a file; the store holds it until it is let go."""
    one = wanted(content)
    receive(store, one, content)
    return store.path(one.sha256, one.suffix)


def receive(store: Store, one: StoredFile, content: bytes) -> None:
    """Have a store receive a file, the last of its chunks first."""
    for number in reversed(range(chunk_count(one.size_bytes))):
        store.write(one, number, content[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
    store.commit(one)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@given(st.lists(st.binary(max_size=300), unique=True, min_size=1), st.data())
@settings(max_examples=50, deadline=None)
def test_what_is_whole_is_not_asked_for_again(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("store")
    with Store(root) as store:
        for content in contents:
            put(store, content)
    harmed = data.draw(st.sets(st.sampled_from([content for content in contents if content] or [b""])))
    for content in harmed - {b""}:
        path = store.path(*wanted(content)[:2])
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with Store(root) as store:
        assert set(store.prepare([wanted(one) for one in contents])) == {wanted(one) for one in harmed - {b""}}


def test_other_bytes_are_not_kept(tmp_path: Path) -> None:
    store, one = Store(tmp_path / "s"), wanted(b"right")
    with pytest.raises(ValueError, match="the bytes received have sha256"):
        receive(store, one, b"wrong")
    assert names(store.root) == set()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = put(Store(tmp_path / "s"), b"weights")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o755)
    Store(path.parent)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (path.parent / "photo.jpg").write_bytes(b"")
    path.parent.chmod(0o755)
    Store(path.parent)  # not a folder of its own: who may look into it was decided by somebody
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_a_flipped_bit_is_found_and_removed(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        path = put(store, b"abc")
        assert store.verify(wanted(b"abc")) == path
        assert store.known_good(path)
    path.write_bytes(b"abd")
    assert not store.known_good(path)
    with Store(tmp_path / "s") as again:
        with pytest.raises(DamagedFileError, match="was damaged in the store"):
            again.verify(wanted(b"abc"))
        assert again.prepare([wanted(b"abc")]) == [wanted(b"abc")]


@pytest.mark.parametrize("which", [".so", ".safetensors"])
@pytest.mark.parametrize("place", [0, 3, 40, 0.5, -1])
def test_no_damaged_stage_is_loaded(which: str, place: float, tmp_path: Path, chain_bundle: Bundle) -> None:
    stage = chain_bundle.manifest.plan.stages[0]
    with Store(tmp_path / "s") as store:
        for one, entry in stored_files(stage).items():
            receive(store, one, chain_bundle.path_of(entry).read_bytes())
        LoadedStages([stage], store, 1 << 30, 1)
        harmed = next(store.path(one.sha256, one.suffix) for one in stored_files(stage) if one.suffix == which)
    changed = bytearray(harmed.read_bytes())
    changed[int(place * len(changed)) if isinstance(place, float) else place] ^= 4
    harmed.write_bytes(changed)
    with Store(tmp_path / "s") as store, pytest.raises(DamagedFileError, match="was damaged in the store"):
        LoadedStages([stage], store, 1 << 30, 1)
    assert not harmed.exists()


def test_what_nobody_used_for_longest_goes_first(tmp_path: Path) -> None:
    contents = [bytes([number]) * MIB for number in range(5)]
    with Store(tmp_path / "s", 5 * MIB) as store:
        paths = [put(store, content) for content in contents]
    for number, path in enumerate(paths):
        os.utime(path, (1e9 + number, path.stat().st_mtime))
    with Store(tmp_path / "s", 5 * MIB) as store:
        new = [wanted(bytes([100 + number]) * MIB) for number in range(2)]
        # The oldest is used again, so that the two after it go.
        assert store.prepare([wanted(contents[0]), *new]) == new
        assert {path.name for path in paths if path.exists()} == {paths[0].name, paths[3].name, paths[4].name}
        with pytest.raises(
            StoreFullError, match=r"5\.0 MiB are needed; .*1\.0 MiB are in use there, its limit is 5\.0"
        ):
            store.prepare([StoredFile("a" * 64, ".so", 5 * MIB)])
        assert paths[0].exists()


def test_no_more_is_promised_than_the_disk_has(tmp_path: Path) -> None:
    with pytest.raises(StoreFullError, match=r"^1048576\.00 GiB are needed; .* are free at its store"):
        Store(tmp_path / "s").prepare([StoredFile("a" * 64, ".so", 1 << 50)])


_HOLDER = """
import sys
from pathlib import Path
from tvmpipe.runtime.device.blob_store import Store
from tvmpipe.runtime.device.stored_file import StoredFile
store = Store(Path(sys.argv[1]))
store.hold(StoredFile(sys.argv[2], ".so", int(sys.argv[3])))
store.write(StoredFile("b" * 64, ".so", 5 << 20), 0, bytes(1 << 20))
print("holding", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(root: Path, one: StoredFile) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses a file, and is receiving one."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(root), one.sha256, str(one.size_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "holding\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_another_process_uses_stays_until_it_is_gone(tmp_path: Path) -> None:
    content = bytes(MIB)
    with Store(tmp_path / "s") as store:
        path = put(store, content)
    limited = Store(tmp_path / "s", MIB)
    more = StoredFile("a" * 64, ".so", MIB)
    with holder(limited.root, wanted(content)) as process:
        with pytest.raises(StoreFullError):
            limited.prepare([more])
        assert path.exists()
        assert len(names(limited.root)) == 2, "what it is receiving stays, too"
        process.send_signal(signal.SIGKILL)
        process.wait()
    begun = next(iter(names(limited.root) - {path.name}))
    assert begun == f".part-{'b' * 64}.so", "what is gone on with stays, too"
    assert limited.prepare([more]) == [more]
    assert names(limited.root) == set(), "and makes room where that is needed"


def small_disk(folder: Path, size_bytes: int) -> bool:
    """A file system of its own; False where this process may not have one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return mounted.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MiB."""
    folder = tmp_path / "disk"
    if not small_disk(folder, 20 * MIB):
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_meanwhile(disk: Path) -> None:
    store = Store(disk / "s")
    with pytest.raises(StoreFullError, match=r"^No space left on device; .* are free at its store"):
        for number in range(30):
            store.write(StoredFile("a" * 64, ".so", 30 * MIB), number, b"a" * MIB)
    assert names(store.root) == set()


def test_a_head_is_told_and_what_is_old_makes_room(disk: Path, chain_bundle: Bundle) -> None:
    """The device says how much it needs and has; once there is room, the same agent takes the files."""
    with local_cluster([LocalAgent(key) for key in ("alpha", "beta", "gamma")], store=disk) as cluster:
        (disk / "others").write_bytes(bytes(4 * MIB))
        with pytest.raises(DeviceError) as caught, tvmpipe.connect(chain_bundle, cluster.tracker):
            pass
        assert "cannot take the stages' files" in str(caught.value)
        assert "are needed" in str(caught.value)
        assert "are free at its store" in str(caught.value)
        (disk / "others").unlink()
        with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
            pipe.run(X)
    assert not list(disk.rglob(".part-*"))


def test_damage_between_two_runs_is_mended(tmp_path: Path, chain_bundle: Bundle) -> None:
    """A bit, a tail, everything: the files are sent again and results are what they were."""
    agents = [LocalAgent(key) for key in ("alpha", "beta", "gamma")]
    with local_cluster(agents, store=tmp_path) as cluster:
        with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
            expected = pipe.run(X)["y"]
            assert pipe.sent_bytes > 0
        files = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".so", ".safetensors"))
        for number, path in enumerate(files):
            content = bytearray(path.read_bytes())
            content[-100] ^= 1
            path.write_bytes((bytes(content), content[:1000], b"")[number % 3])
        with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
            assert np.array_equal(pipe.run(X)["y"], expected)
            assert pipe.sent_bytes > 0
        with tvmpipe.connect(chain_bundle, cluster.tracker) as pipe:
            assert pipe.sent_bytes == 0
