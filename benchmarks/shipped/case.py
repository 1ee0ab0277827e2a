"""What a case is: model files of a package, and what they answer to real input, in words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Session(Protocol):
    """What cases use of an `onnxruntime.InferenceSession`."""

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]: ...


@dataclass(frozen=True)
class Folder:
    """Where packages lie: `python/` as pip installs them, `npm/` with a folder for each."""

    path: Path

    def file(self, name: str) -> Path:
        """A file of a package, "python/silero_vad/data/silero_vad.onnx"."""
        return self.path / name

    def session(self, name: str) -> Session:
        """The model in a file, as packages open theirs."""
        import onnxruntime

        opened: Session = onnxruntime.InferenceSession(str(self.file(name)))
        return opened

    def module(self, name: str) -> Any:
        """A module of an installed package, whose own code prepares inputs and reads outputs."""
        place = str(self.file("python"))
        if place not in sys.path:
            sys.path.append(place)
        return importlib.import_module(name)


@dataclass(frozen=True)
class Case:
    """Model files of a package that answer together.

    Attributes: `files` -> what each is; `answer` runs them in sessions and says what a person would see; `fixed` names
    of inputs that become constants; `note` what else there is to say.
    """

    package: str
    files: Mapping[str, str]
    answer: Callable[[Folder], str]
    fixed: frozenset[str] = field(default_factory=frozenset)
    note: str = ""

    @property
    def name(self) -> str:
        """Of the case: its package and its first file."""
        return f"{self.package}:{next(iter(self.files))}"


def first(session: Session, feed: Mapping[str, Array]) -> Array:
    """The first output."""
    return np.asarray(session.run(None, feed)[0])
