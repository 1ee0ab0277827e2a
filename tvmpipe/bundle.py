"""The deployable artifact: a directory, or the same in one `.tar`.

::

    manifest.json            plans, stages, tensors, devices, hashes
    plan.yaml                the placement, to edit and compile from again
    report.json report.html  what goes where and what it should cost
    stages/s0.so ...         a shared library per stage; equal stages share one
    weights/w0.safetensors   weights that the same stages read, of whichever plans; each lies in one file
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tvmpipe.errors import BundleError
from tvmpipe.files import hash_file
from tvmpipe.manifest import FORMAT_VERSION, FileEntry, Manifest

if TYPE_CHECKING:
    from tvmpipe.runtime.pipeline import Pipeline

MANIFEST = "manifest.json"


class Bundle:
    """A compiled model on disk. Made by `tvmpipe.build` or `tvmpipe.load`."""

    def __init__(self, root: Path, manifest: Manifest, owned: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self.root = root
        self.manifest = manifest
        self._owned = owned  # kept so that a bundle that was never saved lives as long as its object

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the bundle to `path`: a directory, or one file when the name ends in `.tar`.

        It appears whole or not at all. Raises BundleError when something is there and `overwrite` is False, or
        when what is there is no bundle.
        """
        target = Path(path)
        check_target(target, overwrite=overwrite)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise BundleError(f"{target} cannot be written: {error.strerror}") from None
        fresh, replaced = staging / "bundle", staging / "replaced"
        try:
            if target.suffix == ".tar":
                _write_tar(self.root, fresh)
            else:
                shutil.copytree(self.root, fresh)
                fresh.chmod(0o755)
            if target.is_dir():
                os.rename(target, replaced)
            os.replace(fresh, target)
        except OSError as error:
            if replaced.exists() and not target.exists():
                os.rename(replaced, target)
            raise BundleError(f"{target} cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

    def connect(
        self,
        tracker: str,
        *,
        inflight: int | None = None,
        batch: int | None = None,
        failover: bool = False,
        wait_s: float = 10.0,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        start_timeout_s: float = 120.0,
        recover_s: float | None = None,
        cluster_key: str | Path | None = None,
        trace: bool = False,
        event_log: str | Path | None = None,
    ) -> Pipeline:
        """Request the bundle's devices from a tracker ("host:port"), have the stages hosted, return the pipeline.

        `inflight` samples at most are in it at once, by default what the plan says keeps every device busy; `batch`
        samples travel together, by default more than one where periods are so short that each message would count (a
        sample that comes alone never waits for others). `wait_s` is how long to wait for a device that somebody else
        has, `timeout_s` how long one stage may take, `connect_timeout_s` how long finding a device may,
        and `start_timeout_s` how long one may start Python and import TVM, and as long again load its stages.
        With `failover` the loss of a device moves the work to those that are left, where the bundle has a plan for
        that; otherwise, and without `failover`, the device is waited for. Nothing may run for `recover_s` at most, by
        default 60 s with failover and 5 s without; 0 without failover makes every loss final.
        `cluster_key` is the file that the agents have too, needed off loopback. `trace` has devices note what they
        do when; `event_log` is a file for what the executor decided on, from which a run can be replayed.

        Raises TrackerError, DeviceUnavailableError, DeviceError, InputError.
        """
        from tvmpipe.runtime.connect import connect

        return connect(
            self,
            tracker,
            inflight=inflight,
            batch=batch,
            failover=failover,
            wait_s=wait_s,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            start_timeout_s=start_timeout_s,
            recover_s=recover_s,
            cluster_key=cluster_key,
            trace=trace,
            event_log=event_log,
        )

    def path_of(self, entry: FileEntry) -> Path:
        """Where a file of the bundle lies."""
        return self.root / entry.path


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise BundleError where `Bundle.save` would: before an expensive compilation, say."""
    above = next(parent for parent in target.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise BundleError(f"{target} cannot be written: {above} is no folder that may be written to")
    if not target.exists():
        return
    if not overwrite:
        raise BundleError(f"{target} exists; give another name or --force to replace it")
    if target.suffix == ".tar":
        is_bundle = target.is_file() and tarfile.is_tarfile(target)
    else:
        is_bundle = (target / MANIFEST).is_file()
    if not is_bundle:
        raise BundleError(f"{target} exists and is no bundle; it is not replaced")


def load(path: str | Path) -> Bundle:
    """Open a bundle and check every hash in it. Raises BundleError naming the file that is wrong."""
    path = Path(path)
    owned = None
    root = path
    if path.is_file():
        owned = tempfile.TemporaryDirectory(prefix="tvmpipe-")
        root = Path(owned.name)
        try:
            with tarfile.open(path, "r:") as archive:
                _extract(archive, path, root)
        except (tarfile.TarError, OSError) as error:
            raise BundleError(f"{path} is not a bundle: {error}") from None
    elif not path.is_dir():
        raise BundleError(f"bundle {path} does not exist")
    manifest_path = root / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    content = manifest_path.read_bytes()
    version = _format_of(content)
    if version not in (None, FORMAT_VERSION):
        raise BundleError(f"{path} has bundle format {version}; this version reads {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{MANIFEST} of {path} is damaged at {where or 'its start'}: {first['msg']}") from None
    _verify(root, path, manifest)
    return Bundle(root, manifest, owned)


def _extract(archive: tarfile.TarFile, path: Path, root: Path) -> None:
    """The files of the archive at `path`, none of them outside `root`. Raises BundleError where it holds anything else.

    `extractall` cannot be told to before Python 3.11.4, which Debian 12 has not.
    """
    for member in archive:
        name = PurePosixPath(member.name)
        file = archive.extractfile(member) if member.isfile() else None
        if name.is_absolute() or ".." in name.parts or (file is None and not member.isdir()):
            raise BundleError(f"{path} is not a bundle: it may not hold {member.name}")
        if file is not None:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with file, target.open("wb") as written:
                shutil.copyfileobj(file, written, 1 << 20)


def _format_of(content: bytes) -> int | None:
    """The format that a manifest says it has; other formats have other fields. None when it is no manifest."""
    try:
        version = json.loads(content)["format"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) else None


def _verify(root: Path, shown: Path, manifest: Manifest) -> None:
    listed = {entry.path for entry in manifest.files}
    if not manifest.plans:
        raise BundleError(f"{MANIFEST} of {shown} is damaged: it has no plan")
    for stage in (stage for plan in manifest.plans for stage in plan.stages):
        for entry in (stage.library, *stage.weight_files):
            if entry.path not in listed:
                raise BundleError(f"{shown} uses {entry.path}, which its manifest does not list")
    seal = root / f"{MANIFEST}.sha256"
    if not seal.is_file() or seal.read_text().strip() != hash_file(root / MANIFEST):
        raise BundleError(f"{MANIFEST} of {shown} was changed: its sha256 is not the recorded one")
    for entry in manifest.files:
        file = root / entry.path
        if not file.is_file():
            raise BundleError(f"{shown} lacks {entry.path}")
        if hash_file(file) != entry.sha256:
            raise BundleError(f"{entry.path} of {shown} was changed: its sha256 is not the recorded one")


def _write_tar(root: Path, target: Path) -> None:
    """A tar with nothing in it that depends on when and by whom it was made."""
    with tarfile.open(target, "w:", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            info = tarfile.TarInfo(file.relative_to(root).as_posix())
            info.size, info.mode = file.stat().st_size, 0o644
            with file.open("rb") as stream:
                archive.addfile(info, stream)
