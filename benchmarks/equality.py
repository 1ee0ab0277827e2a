"""Whole models over three unequal local agents, compared with ONNX Runtime.

    python -m benchmarks.equality [NAME ...] [--json]

No agent may hold a model alone (each has room for 60 % of the weights, or for the largest
layer where that is more, besides activations), so that every plan
has at least two stages. For each stage the comparison is repeated with that stage fed zeros: "least zeroed" is the
smallest error this gave, which must be far above what is allowed for the comparison to mean anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import tvmpipe
from benchmarks.models import MODELS, write_model
from tvmpipe.bundle import Bundle
from tvmpipe.commands.samples import random_samples
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.equality import Expected, compare, worst
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.reference.results import Reference
from tvmpipe.reference.seeded_models import LIGHT_MODELS, light_model
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, local_cluster
from tvmpipe.targets.description.boards import find_target
from tvmpipe.targets.description.cluster import Cluster, parse_cluster

GENERATED = ("vit_base", "mobilenet_v2", "resnet18", "bert_base")
TRAINED: dict[str, tuple[str, str, dict[str, list[int]]]] = {
    "magika": ("magika", "standard_v3_3/model.onnx", {"bytes": [1, 2048]}),
    "ppocr_det": ("rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx", {"x": [1, 3, 160, 320]}),
    "ppocr_rec": ("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", {"x": [1, 3, 48, 240]}),
}
SAMPLES = 2


def model_file(name: str, folder: Path) -> tuple[Path, dict[str, list[int]]]:
    """The ONNX file of a model by name, and shapes for its open inputs."""
    if name in TRAINED:
        import importlib.metadata

        package, ending, shapes = TRAINED[name]
        files = importlib.metadata.files(package) or []
        return Path(str(next(f.locate() for f in files if str(f).endswith(ending)))), shapes
    if name in MODELS:
        return write_model(name, folder), {}
    path = folder / f"{name}.onnx"
    onnx.save(light_model(name), str(path))
    return path, {}


def too_small_each(model: Path, shapes: dict[str, list[int]]) -> Cluster:
    """Three devices of different targets, none of which can hold the model."""
    from tvmpipe.passes.graph.stages import activation_bytes, derive_stages

    graph = driver.front(model, ImportOptions(shapes=shapes)).graph
    weights = graph.all_weight_bytes
    largest = max(primitive.weight_bytes for primitive in graph.primitives)
    (alone,) = derive_stages(graph, dict.fromkeys(graph.by_name(), ("d0",)))
    memory = max(int(0.6 * weights), largest) + activation_bytes(graph, alone)
    x86 = find_target("native").architecture == "x86_64"
    targets = ("native", "x86-64-v3", "x86-64-v2") if x86 else ("native",) * 3
    return parse_cluster(
        "".join(
            f'[[device]]\nname = "d{i}"\ntarget = "{target}"\nthreads = 1\nmemory = {memory}\n'
            for i, target in enumerate(targets)
        )
    )


def least_zeroed(pipe: Any, bundle: Bundle, sample: Any, expected: Expected) -> float:
    """The smallest error when any one stage gets zeros for its inputs."""
    errors = []
    rules = replace(expected, exact=None)  # wrong on purpose: nothing for float64 to decide
    for stage in bundle.manifest.plan.stages:
        session = pipe.sessions[stage.device]
        honest: Callable[..., Any] = session.run

        def run(name: str, number: int, inputs: Any, honest: Any = honest, zeroed: str = stage.name) -> Any:
            return honest(name, number, [np.zeros_like(a) for a in inputs] if name == zeroed else inputs)

        session.run = run
        errors.append(compare(pipe.run(sample), rules).relative)
        session.run = honest
    return min(errors)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    model, shapes = model_file(name, folder)
    cluster = too_small_each(model, shapes)
    started = time.perf_counter()
    bundle = tvmpipe.build(model, cluster, shapes=shapes, time_limit_s=20)
    compiled = time.perf_counter() - started
    reference = Reference(model)
    samples = random_samples(bundle.manifest, SAMPLES, seed=11)
    with local_cluster([LocalAgent(d.key) for d in cluster.devices], store=folder / f"store-{name}") as local:  # noqa: SIM117
        with tvmpipe.connect(bundle, local.tracker) as pipe:
            results = list(pipe.stream(samples))
            wants = [reference.expect(sample) for sample in samples]
            found = worst(compare(result, want) for result, want in zip(results, wants, strict=True))
            zeroed = least_zeroed(pipe, bundle, samples[0], wants[0])
    stages = [f"{stage.name}:{stage.device}" for stage in bundle.manifest.plan.stages]
    allowed = found.allowed / found.largest if found.largest else found.allowed
    passed = found.equal and allowed < zeroed / 10 and len(stages) >= 2
    return {
        "model": name,
        "stages": stages,
        "error": found.relative,
        "allowed": allowed,
        "verdict": found.verdict,
        "least_zeroed": zeroed,
        "compile_s": compiled,
        "passed": passed,
    }


def main() -> None:
    """Measure the models named on the command line, or all."""
    names = [*LIGHT_MODELS, *GENERATED, *TRAINED]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*LIGHT_MODELS, *MODELS, *TRAINED)))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.names or names:
        with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
            rows.append(measure(name, Path(folder)))
        print(json.dumps(rows[-1]), file=sys.stderr)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        table = Table(title="Largest difference from ONNX Runtime over its largest value")
        for column in ("model", "stages", "error", "allowed", "least zeroed", "compile", ""):
            table.add_column(column)
        for row in rows:
            table.add_row(
                row["model"],
                " ".join(row["stages"]),
                f"{row['error']:.1e}",
                f"{row['allowed']:.1e}",
                f"{row['least_zeroed']:.1e}",
                f"{row['compile_s']:.1f} s",
                "pass" if row["passed"] else f"FAIL ({row['verdict']})",
            )
        Console(width=150).print(table)
    sys.exit(0 if all(row["passed"] for row in rows) else 1)


if __name__ == "__main__":
    reserve_stdout()
    main()
