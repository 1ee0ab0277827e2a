"""The artifact: reproducible, checked, whole or not there."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import tvmpipe
from tvmpipe.bundle import Bundle
from tvmpipe.errors import BundleError
from tvmpipe.manifest import FORMAT_VERSION


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


def test_nothing_is_half_written(tmp_path: Path, chain_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(BundleError, match="cannot be written: no space"):
        chain_bundle.save(tmp_path / "b")
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
