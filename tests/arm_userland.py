"""An Arm device on an x86-64 machine: a Python of Debian's arm64 packages with aarch64 wheels, run by qemu-user.

Nothing is installed and no root is needed: packages and wheels are unpacked into a folder, and `qemu-aarch64` and apt,
with Debian's package sources, are all that is asked of the machine. `python -m tests.arm_userland FOLDER` makes one to
try by hand.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
_PACKAGES = ("python3", "libstdc++6", "libgomp1")  # of Debian; the second and third are what wheels link to
# Versions of glibc that aarch64 wheels are built for, as Debian 12 has all of them.
_PLATFORMS = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")
_LIMIT_S = 300
_TOOLS = ("qemu-aarch64", "apt-get", "dpkg-deb")


class UnavailableError(Exception):
    """Why there can be no such device here."""


@dataclass(frozen=True)
class ArmUserland:
    """A folder made by `arm_userland`."""

    folder: Path

    @property
    def python(self) -> Path:
        """The program to start instead of Python; what it calls `sys.executable` is itself."""
        return self.folder / "python"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that has this project's source and the wheels."""
        return {**os.environ, "PYTHONPATH": f"{self.folder / 'site'}:{ROOT}"}


def arm_userland(cache: Path) -> ArmUserland:
    """A userland in a folder of `cache` that is made once for each list of packages. Raises UnavailableError."""
    if platform.machine() == "aarch64":
        raise UnavailableError("this machine is an Arm itself")
    missing = next((tool for tool in _TOOLS if shutil.which(tool) is None), None)
    if missing is not None:
        raise UnavailableError(f"{missing} is not installed (Debian: qemu-user, apt, dpkg)")
    wanted = _device_packages()
    facts = repr((sorted(wanted.items()), sys.version_info[:2], Path(__file__).read_text()))
    folder = cache.absolute() / f"arm-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            _make(Path(made), wanted, folder)
            (Path(made) / "userland").rename(folder)
    return ArmUserland(folder)


def _device_packages() -> dict[str, str]:
    """What a device needs beside tvmpipe, of the versions that are installed here: name -> version.

    As `pyproject.toml` has it: what pip wrote of an editable project may be older.
    """
    found: dict[str, str] = {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left = [Requirement(line) for line in project["dependencies"]]
    while left:
        requirement = left.pop()
        if requirement.name in found or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        installed = distribution(requirement.name)
        found[requirement.name] = installed.version
        left += [Requirement(line) for line in installed.requires or ()]
    return found


def _make(made: Path, wanted: Mapping[str, str], final: Path) -> None:
    """Fill `made`/userland, which will lie at `final`."""
    userland, downloads = made / "userland", made / "downloads"
    root, site = userland / "root", userland / "site"
    root.mkdir(parents=True)
    for package in _debian_packages(downloads):
        _call("dpkg-deb", "-x", str(package), str(root))
    for wheel in _wheels(wanted, downloads):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    _describe(site)
    (interpreter,) = (path for path in (root / "usr/bin").glob("python3.*") if path.name[8:].isdecimal())
    if interpreter.name != f"python3.{sys.version_info.minor}":
        raise UnavailableError(
            f"Debian's Python is {interpreter.name}, and wheels were chosen for that of this process"
        )
    there = final / "root"
    (userland / "python").write_text(
        f"#!/bin/sh\nexport PYTHONHOME={there}/usr\n"
        f'exec qemu-aarch64 -L {there} -0 {final}/python {there}/usr/bin/{interpreter.name} "$@"\n'
    )
    (userland / "python").chmod(0o755)


def _debian_packages(folder: Path) -> list[Path]:
    """Debian's arm64 packages and what they depend on, fetched without regard to what is installed here."""
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Acquire::Languages": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _call("apt-get", "-qq", *options, "update")
    _call("apt-get", "-qq", *options, "install", "-y", "--no-install-recommends", "--download-only", *_PACKAGES)
    return list((folder / "archives").glob("*.deb"))


def _wheels(wanted: Mapping[str, str], folder: Path) -> list[Path]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    choice = ["--only-binary=:all:", "--python-version", version, "--implementation", "cp"]
    for abi in (f"cp{version.replace('.', '')}", "abi3", "none"):
        choice += ["--abi", abi]
    for glibc in (*_PLATFORMS, None):
        choice += ["--platform", f"manylinux_{glibc}_aarch64" if glibc else "manylinux2014_aarch64"]
    pinned = [f"{name}=={number}" for name, number in wanted.items()]
    _call(sys.executable, "-m", "pip", "download", "-q", "--no-deps", *choice, "-d", str(folder / "wheels"), *pinned)
    return list((folder / "wheels").glob("*.whl"))


def _describe(site: Path) -> None:
    """What pip would have written of tvmpipe, whose source comes from the project."""
    number = distribution("tvmpipe").version
    facts = site / f"tvmpipe-{number}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tvmpipe\nVersion: {number}\n")


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{Path(command[0]).name} took more than {_LIMIT_S} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise UnavailableError(f"{Path(command[0]).name} cannot get the packages: {said[-1] if said else 'no reason'}")


def main() -> None:
    """Make one in a folder and say how to use it."""
    userland = arm_userland(Path(sys.argv[1]))
    variables = f"PYTHONPATH={userland.environment['PYTHONPATH']}"
    print(f"{variables} {userland.python} -m tvmpipe agent --tracker HOST:PORT --key pi")


if __name__ == "__main__":
    main()
