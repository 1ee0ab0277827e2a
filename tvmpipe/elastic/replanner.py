"""Asks a process that plans and compiles (`worker`), which is started with the pipeline and ends with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmpipe import errors
from tvmpipe.bundle import Bundle, load
from tvmpipe.elastic.planner import FOLDER
from tvmpipe.errors import BundleError, DeviceError, TvmpipeError
from tvmpipe.files import TemporaryFolder
from tvmpipe.manifest import DeviceEntry, FileEntry, PlanEntry
from tvmpipe.process import describe_exit, die_with_parent
from tvmpipe.runtime.head.agent_facts import AgentFacts
from tvmpipe.runtime.head.replanner import Extension, Proposal, Request


class Replanner:
    """Makes plans of an elastic bundle, or the path of one, in a process of its own; for `connect`, which ends it.

    `profiles` is the folder of the user's measurements, by default the user's cache. Raises BundleError for a bundle
    that was not compiled with `elastic`.
    """

    def __init__(self, bundle: Bundle | str | Path, profiles: Path | None = None) -> None:
        if not isinstance(bundle, Bundle):
            bundle = load(bundle)
        if bundle.manifest.elastic is None:
            raise BundleError("this bundle keeps nothing of its compilation; compile it with --elastic")
        self._bundle = bundle
        self._folder = TemporaryFolder("tvmpipe-elastic-")
        self._lock = threading.Lock()
        self._closed = False
        arguments = [str(bundle.root), self._folder.name, *([] if profiles is None else [str(profiles)])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tvmpipe.elastic.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            preexec_fn=_begin,
        )

    def path_of(self, entry: FileEntry) -> Path:
        """A file of a plan that was made, or of the bundle."""
        if entry.path.startswith(f"{FOLDER}/"):
            return Path(self._folder.name) / entry.path
        return self._bundle.path_of(entry)

    def knows(self, name: str) -> bool:
        """Whether the bundle's cluster file has a device of this name, or it was described."""
        return bool(self._ask({"do": "knows", "name": name})["known"])

    def describe(self, name: str, key: str, table: Mapping[str, Any], facts: AgentFacts | None = None) -> DeviceEntry:
        """A device from now on may be planned with: as `table` says, or else the cluster file, or else its agent."""
        told_of = None if facts is None else facts.to_dict()
        told = self._ask({"do": "describe", "name": name, "key": key, "table": dict(table), "facts": told_of})
        return DeviceEntry.model_validate(told)

    def propose(self, request: Request) -> Proposal:
        """As `Replanner.propose`."""
        links = [[*ends, factor] for ends, factor in request.speeds.links.items()]
        told = self._ask(
            {
                "do": "propose",
                "present": list(request.present),
                "devices": dict(request.speeds.devices),
                "links": links,
                "time_limit_s": request.time_limit_s,
            }
        )
        weights = {name: tuple(paths) for name, paths in told.pop("weights").items()}
        return Proposal(**told, weights=weights)

    def make(self, proposal: Proposal) -> Extension:
        """As `Replanner.make`."""
        told = self._ask({"do": "make", "number": proposal.number})
        devices = tuple(DeviceEntry.model_validate(one) for one in told["devices"])
        return Extension(PlanEntry.model_validate(told["plan"]), devices, self)

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question. Raises what the process raised, as an error of the same kind."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except (OSError, ValueError):  # it has ended, or was closed meanwhile
                line = ""
        if not line:
            why = "the pipeline was closed" if self._closed else describe_exit(self._process.poll())
            raise DeviceError(f"the process that makes plans has ended: {why}")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            kind = getattr(errors, told["error"], TvmpipeError)
            raise kind(told["message"])
        answer: dict[str, Any] = told["answer"]
        return answer


def _begin() -> None:
    die_with_parent()
    os.nice(5)  # what is computed here waits for nobody; on a head that is a device too, stages go first
