"""Trained models from PyPI packages on real input: the answer is right, not only equal."""

from __future__ import annotations

import importlib.metadata
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import tvmpipe
from tvmpipe.reference.results import Reference
from tvmpipe.runtime.emulation.inprocess import run_in_process
from tvmpipe.runtime.emulation.local_cluster import LocalCluster
from tvmpipe.targets.description.cluster import parse_cluster


def packaged(package: str, name: str) -> Path:
    """A file that an installed package carries; the package itself is not imported."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} cannot be installed for this Python")
    return Path(str(next(file.locate() for file in files if str(file).endswith(name))))


def compile_and_run(
    model: Path,
    shapes: dict[str, list[int]],
    sample: dict[str, NDArray[Any]],
    plan: Path,
    cluster: Path,
    tracker: str,
) -> NDArray[np.float32]:
    """The model's first output over three agents, checked against ONNX Runtime."""
    bundle = tvmpipe.build(model, cluster, shapes=shapes, plan=plan)
    assert {stage.device for stage in bundle.manifest.plan.stages} == {"alpha", "beta", "gamma"}
    with tvmpipe.connect(bundle, tracker) as pipe:
        result = pipe.run(sample)
    assert Reference(model).compare(result, sample).equal
    first: NDArray[np.float32] = result[bundle.manifest.model.outputs[0].name]
    return first


def thirds(model: Path, cluster: Path, shapes: dict[str, list[int]], folder: Path) -> Path:
    """A plan that cuts the primitives into three consecutive parts."""
    from tvmpipe.passes import driver
    from tvmpipe.passes.frontend.options import ImportOptions

    graph = driver.front(model, ImportOptions(shapes=shapes)).graph
    names = list(graph.by_name())
    devices = ["alpha", "beta", "gamma"]
    lines = [f"  {name}: {devices[3 * i // len(names)]}" for i, name in enumerate(names)]
    path = folder / "thirds.yaml"
    path.write_text("placement:\n" + "\n".join(lines) + "\n")
    return path


def test_magika_knows_python_when_it_sees_it(tmp_path: Path, cluster_path: Path, agents: LocalCluster) -> None:
    """Google's file type model reads the first and last 1024 bytes; here of this file."""
    model = packaged("magika", "standard_v3_3/model.onnx")
    config = json.loads(packaged("magika", "standard_v3_3/config.min.json").read_text())
    content = Path(__file__).read_bytes().strip()
    begin, end = content[: config["beg_size"]], content[-config["end_size"] :]
    sample = {"bytes": np.array([[*begin, *end]], dtype=np.int32)}
    shapes = {"bytes": [1, 2048]}
    plan = thirds(model, cluster_path, shapes, tmp_path)
    scores = compile_and_run(model, shapes, sample, plan, cluster_path, agents.tracker)
    assert config["target_labels_space"][int(scores.argmax())] == "python"


def test_ocr_reads_what_was_drawn(
    tmp_path: Path, cluster_path: Path, agents: LocalCluster, spread_plan: Callable[[Path, list[str]], Path]
) -> None:
    """PaddleOCR's text recogniser (convolutions, then attention) on a line of text drawn here."""
    model = packaged("rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx")
    text, width = "TVM 27 pipes", 240
    image = Image.new("RGB", (width, 48), "white")
    ImageDraw.Draw(image).text((8, 4), text, fill="black", font=ImageFont.load_default(size=36))
    pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    shapes = {"x": [1, 3, 48, width]}
    plan = thirds(model, cluster_path, shapes, tmp_path)
    scores = compile_and_run(model, shapes, {"x": pixels}, plan, cluster_path, agents.tracker)
    metadata = {entry.key: entry.value for entry in onnx.load(str(model)).metadata_props}
    alphabet = ["", *metadata["character"].splitlines(), " "]
    best = scores[0].argmax(axis=-1)
    read = [alphabet[c] for c, before in zip(best, [0, *best[:-1]], strict=True) if c not in (0, before)]
    assert "".join(read) == text


ONE = parse_cluster('[[device]]\nname = "one"\nthreads = 1\n')


def test_a_quantised_lstm_restores_vowel_marks() -> None:
    """Letters of an Arabic sentence without their marks; for each the model says which it has."""
    model = packaged("text2tashkeel", "models/rawi_v2.int8.onnx")
    vocabulary = json.loads(packaged("text2tashkeel", "models/rawi_v2.vocab.json").read_text())
    marked = "بِسْمِ اللَّهِ الرَّحْمَنِ الرَّحِيمِ"
    letters = [c for c in unicodedata.normalize("NFD", marked) if unicodedata.category(c) != "Mn"]
    sample = {"input": np.array([[vocabulary["char_to_idx"][c] for c in letters]], np.int64)}
    with run_in_process(tvmpipe.build(model, ONE, shapes={"input": [1, len(letters)]})) as pipe:
        result = pipe.run(sample)
    found = Reference(model, threads=1).compare(result, sample)
    assert found.equal, found.sentence
    marks = {number: mark for mark, number in vocabulary["diac_to_idx"].items()}
    restored = [
        c + (marks[int(k)] if c != " " else "") for c, k in zip(letters, result["output"][0].argmax(-1), strict=True)
    ]
    assert unicodedata.normalize("NFC", "".join(restored)) == unicodedata.normalize("NFC", marked)


def test_a_pitch_is_heard() -> None:
    """Half a second of a note of 440 Hz with overtones and some noise; the model computes its spectrum itself."""
    model = packaged("swift-f0", "swift_f0/model.onnx")
    at = np.arange(8000) / 16000
    note = sum(0.3 * np.sin(2 * np.pi * 440 * k * at) / k**2 for k in range(1, 5))
    note += 1e-3 * np.random.default_rng(0).standard_normal(8000)
    sample = {
        "audio": np.asarray(note, np.float32)[None],
        "fmin": np.asarray(46.875, np.float32),
        "fmax": np.asarray(2093.75, np.float32),
    }
    with run_in_process(tvmpipe.build(model, ONE, shapes={"audio": [1, 8000]})) as pipe:
        result = pipe.run(sample)
    found = Reference(model, threads=1).compare(result, sample)
    assert found.equal, found.sentence
    assert abs(np.median(result["pitch"]) / 440 - 1) < 0.01
