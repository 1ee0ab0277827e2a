"""How the file of a stage is made: one file a code generator.

Its name is said by the stage, where TVM cannot compile what is in it, or else by the target of its device. A file is a
module with what `CodeGenerator` says. What runs such a file is the runner of the same name in
`tvmpipe.runtime.device.runners`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tvmpipe.errors import UnsupportedModelError
from tvmpipe.targets.description.target import TargetDescription


@dataclass(frozen=True)
class StageCode:
    """What a code generator makes of a stage: the bytes of its file, and those that running it allocates beside weights
    and inputs."""

    content: bytes
    allocated_bytes: int


class CodeGenerator(Protocol):
    """A module of this folder. `SUFFIX` is that of its files, with the dot."""

    SUFFIX: str

    def compile_stage(
        self, module: Any, target: TargetDescription, threads: int, records: Path | None = None
    ) -> StageCode:
        """The file of a stage; the same module gives the same bytes.

        `module` is what `partition` makes of a stage: an IRModule whose `main` takes the stage's inputs and then one
        tuple of its weights, if it has any, and returns a tuple of its outputs; or, where the stage says that its code
        generator is "onnxruntime", an `OnnxStage`. `records` is a folder of measured schedules. For what it
        cannot compile it raises NotImplementedError; `lower` makes one sentence of whatever is raised.
        """
        ...


CODE_GENERATORS: dict[str, str] = {
    "llvm": "tvmpipe.passes.backend.codegen.llvm",
    "onnxruntime": "tvmpipe.passes.backend.codegen.onnxruntime",
}


def code_generator(name: str) -> CodeGenerator:
    """The code generator of that name. Raises UnsupportedModelError when there is none."""
    if name not in CODE_GENERATORS:
        raise UnsupportedModelError(f"there is no code generator {name!r}; known are {', '.join(CODE_GENERATORS)}")
    found: CodeGenerator = importlib.import_module(CODE_GENERATORS[name])
    return found
