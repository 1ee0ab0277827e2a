"""The artifact: reproducible, checked, whole or not there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tvmpipe
from tests.runtime import manifests
from tvmpipe.bundle import Bundle
from tvmpipe.consistency import inconsistency
from tvmpipe.errors import BundleError
from tvmpipe.manifest import FORMAT_VERSION, LinkEntry, StageEntry


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_model_same_bytes(
    tmp_path: Path, branchy_path: Path, cluster_path: Path, spread_plan: Callable[[Path, list[str]], Path]
) -> None:
    plan = spread_plan(branchy_path, ["alpha", "beta"])
    for name in ("one", "two"):
        tvmpipe.build(branchy_path, cluster_path, plan=plan).save(tmp_path / name)
        tvmpipe.build(branchy_path, cluster_path, plan=plan).save(tmp_path / f"{name}.tar")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_directory_and_tar_hold_the_same(tmp_path: Path, chain_bundle: Bundle) -> None:
    chain_bundle.save(tmp_path / "dir")
    chain_bundle.save(tmp_path / "file.tar")
    from_tar = tvmpipe.load(tmp_path / "file.tar")
    assert contents(from_tar.root) == contents(tmp_path / "dir")
    assert from_tar.manifest == tvmpipe.load(tmp_path / "dir").manifest


def test_contents_are_as_documented(chain_bundle: Bundle) -> None:
    assert sorted(contents(chain_bundle.root)) == [
        "manifest.json",
        "manifest.json.sha256",
        "plan.yaml",
        "report.html",
        "report.json",
        "stages/s0.so",  # the three stages differ in their weights alone
        *(f"weights/w{i}.safetensors" for i in range(3)),
    ]


def test_every_byte_is_checked(tmp_path: Path, chain_bundle: Bundle) -> None:
    chain_bundle.save(tmp_path / "b")
    for name, data in contents(tmp_path / "b").items():
        path = tmp_path / "b" / name
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=r"(was changed|is damaged)"):
            tvmpipe.load(tmp_path / "b")
        path.unlink()
        with pytest.raises(BundleError, match=r"(lacks|no manifest|was changed)"):
            tvmpipe.load(tmp_path / "b")
        path.write_bytes(data)
    tvmpipe.load(tmp_path / "b")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        tvmpipe.load(tmp_path / "none")
    with pytest.raises(BundleError, match="is not a bundle"):
        tvmpipe.load(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="is not a bundle"):
        tvmpipe.load(tmp_path / "text")


def test_tar_cannot_write_outside(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for member in (tarfile.TarInfo("../evil"), tarfile.TarInfo(f"{tmp_path.parent}/evil"), link):
        with tarfile.open(tmp_path / "evil.tar", "w:") as archive:
            archive.addfile(member)
        with pytest.raises(BundleError, match="may not hold"):
            tvmpipe.load(tmp_path / "evil.tar")
    assert not (tmp_path.parent / "evil").exists()


def test_existing_things_are_kept(tmp_path: Path, chain_bundle: Bundle) -> None:
    target = tmp_path / "b"
    chain_bundle.save(target)
    with pytest.raises(BundleError, match="exists; give another name or --force"):
        chain_bundle.save(target)
    chain_bundle.save(target, overwrite=True)
    tvmpipe.load(target)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(BundleError, match="is no bundle; it is not replaced"):
        chain_bundle.save(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").is_file()
    (tmp_path / "notes.tar").write_text("hello")
    for name in ("notes.tar", "notes.tar/inside"):
        with pytest.raises(BundleError):
            chain_bundle.save(tmp_path / name, overwrite=True)
    assert (tmp_path / "notes.tar").read_text() == "hello"


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The kernel lets this process write no larger files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["b", "b.tar"])
def test_nothing_is_half_written(name: str, tmp_path: Path, chain_bundle: Bundle) -> None:
    with files_of_at_most(100_000), pytest.raises(BundleError, match="cannot be written: File too large"):
        chain_bundle.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_old_bundle_survives_a_failed_replacement(
    tmp_path: Path, chain_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain_bundle.save(tmp_path / "b")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(BundleError, match="No space left on device"):
            chain_bundle.save(tmp_path / "b", overwrite=True)
    tvmpipe.load(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_other_format_version(tmp_path: Path, chain_bundle: Bundle) -> None:
    from tvmpipe.files import hash_file

    chain_bundle.save(tmp_path / "b")
    manifest = tmp_path / "b" / "manifest.json"
    text = manifest.read_text().replace(f'"format": {FORMAT_VERSION}', '"format": 1')
    manifest.write_text(text.replace('"plans"', '"stages"'))
    (tmp_path / "b" / "manifest.json.sha256").write_text(hash_file(manifest))
    with pytest.raises(BundleError, match=f"bundle format 1; this version reads {FORMAT_VERSION}"):
        tvmpipe.load(tmp_path / "b")


def archive(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """A tar with these members, as they are or as headers alone."""
    with tarfile.open(path, "w:", format=tarfile.GNU_FORMAT) as made:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                made.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return path


def written(folder: Path) -> int:
    """Bytes that lie in a folder, with holes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are unpacked, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_no_more_is_extracted_than_the_manifest_lists(tmp_path: Path, temporary: Path, chain_bundle: Bundle) -> None:
    files: dict[str, bytes | tarfile.TarInfo] = dict(contents(chain_bundle.root))
    whole = tvmpipe.load(archive(tmp_path / "whole.tar", files))
    assert contents(whole.root) == files
    del whole
    more = archive(tmp_path / "more.tar", {**files, "stages/s9.so": b"x"})
    with pytest.raises(BundleError, match=r"holds stages/s9\.so, which its manifest does not list"):
        tvmpipe.load(more)
    longer = archive(tmp_path / "longer.tar", {**files, "stages/s0.so": bytes(10_000_000)})
    with pytest.raises(BundleError, match=r"stages/s0\.so of .* was changed: it has 10000000 bytes, not"):
        tvmpipe.load(longer)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:-200_000])
    with pytest.raises(BundleError):
        tvmpipe.load(tmp_path / "cut.tar")
    del files["weights/w1.safetensors"]
    with pytest.raises(BundleError, match=r"lacks weights/w1\.safetensors"):
        tvmpipe.load(archive(tmp_path / "less.tar", files))
    assert list(temporary.iterdir()) == []


def test_a_sparse_tar_writes_nothing(tmp_path: Path, temporary: Path, chain_bundle: Bundle) -> None:
    sparse = tmp_path / "sparse"
    sparse.mkdir()
    for name, content in contents(chain_bundle.root).items():
        (sparse / name).parent.mkdir(exist_ok=True)
        (sparse / name).write_bytes(content)
    with (sparse / "stages" / "s0.so").open("wb") as file:
        file.truncate(3 << 30)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "sparse.tar", "-C", sparse, "."], check=True)
    assert (tmp_path / "sparse.tar").stat().st_size < 2_000_000
    with pytest.raises(BundleError, match=r"may not hold .*s0\.so"):
        tvmpipe.load(tmp_path / "sparse.tar")
    assert written(temporary) == 0


def test_a_tar_as_people_make_them(tmp_path: Path, chain_bundle: Bundle) -> None:
    """With folders in it, and names that begin with a dot."""
    chain_bundle.save(tmp_path / "b")
    subprocess.run(["tar", "-cf", tmp_path / "b.tar", "-C", tmp_path / "b", "."], check=True)
    assert contents(tvmpipe.load(tmp_path / "b.tar").root) == contents(tmp_path / "b")


def test_nested_folders_and_headers(tmp_path: Path, temporary: Path) -> None:
    folder = tarfile.TarInfo("/".join(["d"] * 2000))
    folder.type = tarfile.DIRTYPE
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        tvmpipe.load(archive(tmp_path / "folders.tar", {"": folder}))
    # A header that says that the next one's name is long, again and again, and one that claims to be 1 GB.
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGNAME, 2
    header = link.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    (tmp_path / "headers.tar").write_bytes(header * 5000 + bytes(1024))
    link.size = 1 << 30
    with (tmp_path / "large.tar").open("wb") as file:
        file.write(link.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2 << 30)
    for name in ("headers.tar", "large.tar"):
        with pytest.raises(BundleError, match="is not a bundle"):
            tvmpipe.load(tmp_path / name)
    assert list(temporary.iterdir()) == []


def test_a_manifest_that_nests_too_deep(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is damaged"):
        tvmpipe.load(archive(tmp_path / "deep.tar", {"manifest.json": b"[" * 100_000}))


def test_symbolic_links_are_no_files_of_a_bundle(tmp_path: Path, chain_bundle: Bundle) -> None:
    chain_bundle.save(tmp_path / "b")
    library = tmp_path / "b" / "stages" / "s0.so"
    library.rename(tmp_path / "elsewhere.so")
    library.symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(BundleError, match=r"stages/s0\.so of .* is behind a symbolic link"):
        tvmpipe.load(tmp_path / "b")
    library.unlink()
    (tmp_path / "elsewhere.so").rename(library)
    bundle = tvmpipe.load(tmp_path / "b")
    # What was put beside it since, and what its files became.
    (tmp_path / "secret").write_text("root:$6$...")
    (tmp_path / "b" / "stages" / "s1.so").symlink_to(tmp_path / "secret")
    bundle.save(tmp_path / "copy.tar")
    with tarfile.open(tmp_path / "copy.tar") as copy:
        assert "stages/s1.so" not in copy.getnames()
    library.unlink()
    library.symlink_to(tmp_path / "secret")
    for name in ("again.tar", "again"):
        with pytest.raises(BundleError, match="is behind a symbolic link"):
            bundle.save(tmp_path / name)
        assert not (tmp_path / name).exists()
    (tmp_path / "model.tvmpipe").symlink_to(tmp_path / "copy.tar")
    tvmpipe.load(tmp_path / "model.tvmpipe")  # the bundle itself may be one


def test_save_writes_what_was_checked(tmp_path: Path, chain_bundle: Bundle) -> None:
    chain_bundle.save(tmp_path / "b")
    bundle = tvmpipe.load(tmp_path / "b")
    path = tmp_path / "b" / "stages" / "s0.so"
    path.write_bytes(bytes(path.stat().st_size))
    for name in ("c.tar", "c"):
        with pytest.raises(BundleError, match="was changed"):
            bundle.save(tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_are_as_the_umask_says(mask: int, tmp_path: Path, chain_bundle: Bundle) -> None:
    before = os.umask(mask)
    try:
        chain_bundle.save(tmp_path / "b")
        chain_bundle.save(tmp_path / "b.tar")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "b.tar", *(tmp_path / "b").rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o666 & ~mask}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o777 & ~mask}
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o777 & ~mask


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("name", ["", "b", "b/manifest.json", "b/weights/w0.safetensors", "b.tar"])
def test_another_users_bundle_is_one_sentence(name: str, tmp_path: Path, chain_bundle: Bundle) -> None:
    chain_bundle.save(tmp_path / "b")
    chain_bundle.save(tmp_path / "b.tar")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    (tmp_path / name).chmod(0)
    path = str(tmp_path / (name.split("/")[0] or "b"))
    script = f"import os, tvmpipe; load = tvmpipe.load; os.setgid(65534); os.setuid(65534); load({path!r})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("tvmpipe.errors.BundleError: "), result.stderr
    assert "cannot be read: Permission denied" in last


def test_each_reference_is_looked_up(tmp_path: Path, chain_bundle: Bundle) -> None:
    """What a manifest refers to exists, and what it says of a thing in two places is the same."""

    def plan(manifest: dict[str, Any]) -> Any:
        return manifest["plans"][0]

    edits: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
        ("is on 'nobody', which is no device", lambda m: plan(m)["stages"][1].update(device="nobody")),
        ("does without 'nobody'", lambda m: m["plans"].append({**m["plans"][0], "lost": "nobody"})),
        ("a link ends at 'nobody'", lambda m: plan(m)["links"][0].update(receiver="nobody")),
        ("no link carries tensor", lambda m: plan(m)["links"].pop()),
        ("no link carries tensor", lambda m: plan(m)["links"][1]["values"].clear()),
        ("has two links from 'head' to 'alpha'", lambda m: plan(m)["links"].append(plan(m)["links"][0])),
        ("which its sender does not make", lambda m: plan(m)["links"][0]["values"].append(99)),
        (
            "which its receiver does not need",
            lambda m: plan(m)["links"].append({**plan(m)["links"][1], "receiver": "gamma"}),
        ),
        ("carries tensor 0 twice", lambda m: plan(m)["links"][0]["values"].append(0)),
        ("is damaged at plans.0.links.0.values", lambda m: plan(m)["links"][0].pop("values")),
        ("names the device 'alpha' twice", lambda m: m["devices"].append(m["devices"][0])),
        ("reads tensor 77, which nothing", lambda m: plan(m)["stages"][1]["inputs"][0].update(value=77)),
        ("nothing makes the output 'y'", lambda m: m["model_outputs"].update(y=99)),
        ("has no tensor for the input 'x'", lambda m: m.update(model_inputs={})),
        ("elsewhere it is", lambda m: plan(m)["stages"][1]["inputs"][0]["spec"].update(shape=[4, 257])),
        ("there are two stages 's0'", lambda m: plan(m)["stages"][1].update(name="s0")),
        (
            "made twice for the same batch",
            lambda m: plan(m)["stages"][2]["outputs"].append(plan(m)["stages"][0]["outputs"][0]),
        ),
        ("makes for its batches", lambda m: plan(m)["stages"][0].update(turn={"place": 0, "of": 2})),
        ("nobody to make tensor", lambda m: plan(m)["stages"][2].update(turn={"place": 0, "of": 2})),
        (
            "uses 'stages/no.so', which it does not list",
            lambda m: plan(m)["stages"][0]["library"].update(path="stages/no.so"),
        ),
        ("says two different things of", lambda m: plan(m)["stages"][0]["library"].update(size_bytes=1)),
        ("says what stage 'no' calls", lambda m: m["code"]["calls"].update(no={})),
        ("has no plan", lambda m: m.update(plans=[])),
        ("there is no stage", lambda m: plan(m).update(stages=[])),
        ("is damaged at plans.0.inflight", lambda m: plan(m).update(inflight=0)),
        ("is damaged at plans.0.links.0.encoding", lambda m: plan(m)["links"][0].update(encoding="zip")),
        (
            "is damaged at plans.0.predicted.period_s",
            lambda m: plan(m)["predicted"].update(period_s=float("nan")),
        ),
        ("is damaged at model.inputs.0.dtype", lambda m: m["model"]["inputs"][0].update(dtype="object")),
        ("is damaged at model.inputs.0.shape.0", lambda m: m["model"]["inputs"][0].update(shape=[-4, 256])),
        ("is damaged at devices.0.triple", lambda m: m["devices"][0].update(triple="../../etc")),
        ("is damaged at files.0.path", lambda m: m["files"][0].update(path="a/" * 2000 + "b")),
    ]
    for number, (message, edit) in enumerate(edits):
        path = tmp_path / str(number)
        chain_bundle.save(path)
        manifest = json.loads((path / "manifest.json").read_text())
        edit(manifest)
        text = json.dumps(manifest).encode()
        (path / "manifest.json").write_bytes(text)
        (path / "manifest.json.sha256").write_text(hashlib.sha256(text).hexdigest())
        with pytest.raises(BundleError) as caught:
            tvmpipe.load(path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_tensor_is_there_for_the_batches_that_read_it() -> None:
    """One of two that take turns reads what the other makes, of the other's batches."""
    first, second = manifests.in_turn("s0", "ab", [0], [1])

    def found(*stages: StageEntry) -> str | None:
        made = manifests.manifest([manifests.plan(stages)], {"x": 0}, {"y": 1})
        return inconsistency(made.model_copy(update={"files": (manifests.FILE,)}))

    assert found(first, second) is None
    crossed = second.model_copy(update={"inputs": first.outputs})
    assert found(first, crossed) == (
        "in plan 0 stage 's0@b' reads tensor 1, which nothing before it makes for its batches"
    )


def test_links_of_devices_in_turn_are_checked_batch_by_batch() -> None:
    """Two before two are two lanes: a link between the lanes carries nothing, one in a lane must be there."""
    stages = [*manifests.in_turn("s0", "ab", [0], [1]), *manifests.in_turn("s1", "cd", [1], [2])]
    made = manifests.manifest([manifests.plan(stages)], {"x": 0}, {"y": 2})
    made = made.model_copy(update={"files": (manifests.FILE,)})
    assert inconsistency(made) is None

    def with_links(*links: LinkEntry) -> str | None:
        return inconsistency(made.model_copy(update={"plans": (made.plan.model_copy(update={"links": links}),)}))

    lane = next(link for link in made.plan.links if (link.sender, link.receiver) == ("a", "c"))
    across = lane.model_copy(update={"receiver": "d"})
    assert with_links(*made.plan.links, across) == (
        "in plan 0 the link from 'a' to 'd' carries tensor 1, and no batch is for both"
    )
    left = [link for link in made.plan.links if link is not lane]
    assert with_links(*left) == "in plan 0 no link carries tensor 1 from 'a' to 'c'"
