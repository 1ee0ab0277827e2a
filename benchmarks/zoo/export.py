"""Export architectures to ONNX, for a Python with torch, torchvision, timm, transformers and onnxscript.

    python -m benchmarks.zoo.export FOLDER [PATTERN ...]

Each goes through both of torch's exporters, at opsets of 17 to 23 in turn; a file that is there is left alone. One that
cannot be exported is one line. Weights are random and seeded, so that nothing is downloaded.
"""

from __future__ import annotations

import fnmatch
import importlib
import logging
import sys
import warnings
from pathlib import Path

import torch

from benchmarks.zoo.architecture import Architecture

_EXPORTERS = {"torchscript": (17, 18, 20), "dynamo": (18, 20, 21, 23)}


def main() -> None:
    """Export what the patterns name, all without any."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    folder, patterns = Path(sys.argv[1]), sys.argv[2:] or ["*"]
    known: dict[str, Architecture] = {}
    for room in ("vision", "language"):
        try:
            known |= importlib.import_module(f"benchmarks.zoo.{room}").architectures()
        except (ImportError, RuntimeError) as error:  # torchvision raises the latter where its library does not load
            print(f"nothing of {room}: {error}", flush=True)
    for number, (name, one) in enumerate(known.items()):
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            for kind, opsets in _EXPORTERS.items():
                _export(folder, name, one, kind, opsets[number % len(opsets)])


def _export(folder: Path, name: str, one: Architecture, kind: str, opset: int) -> None:
    path = folder / f"{name}-{kind}-{opset}.onnx"
    if path.exists():
        return
    torch.manual_seed(0)
    made = path.with_suffix(".tmp")
    dynamo = kind == "dynamo"
    more = {"external_data": False} if dynamo else {}
    try:
        module = one.make().eval()
        with torch.no_grad():
            arguments = one.arguments()
            torch.onnx.export(
                module, arguments, str(made), opset_version=opset, dynamo=kind == "dynamo", verbose=False, **more
            )
    except Exception as error:  # noqa: BLE001  # exporters raise everything
        lines = str(error).strip().splitlines()
        print(f"{path.stem}: not exported: {type(error).__name__}: {lines[-1] if lines else ''}", flush=True)
        made.unlink(missing_ok=True)
        return
    made.replace(path)


if __name__ == "__main__":
    main()
