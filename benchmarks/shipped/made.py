"""Real input made without a network: speech, tones, lines of text, pictures."""

from __future__ import annotations

import functools
import io
import subprocess
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import signal

from benchmarks.shipped.case import Folder

RATE = 16000
Samples = NDArray[np.float32]


@functools.cache
def speech(text: str, voice: str = "en-us", rate: int = RATE) -> Samples:
    """What `espeak-ng` (Debian's package of that name) says, in -1 to 1, with half a second of silence around it."""
    said = subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "--stdout", text], capture_output=True, check=True)
    with wave.open(io.BytesIO(said.stdout)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        have = file.getframerate()
    silence = np.zeros(rate // 2, np.float32)
    resampled = signal.resample_poly(samples, rate, have).astype(np.float32)
    return np.concatenate([silence, np.clip(resampled, -1, 1), silence])


def tone(frequency: float, seconds: float, rate: int = RATE) -> Samples:
    """A note with three overtones, and the noise that every recording has: logarithms amplify what is next to 0."""
    at = np.arange(int(seconds * rate)) / rate
    wave_form = sum(0.3 * np.sin(2 * np.pi * frequency * k * at) / k**2 for k in range(1, 5))
    return np.asarray(wave_form + 1e-3 * np.random.default_rng(0).standard_normal(len(at)), np.float32)


def line(text: str, size: int = 36, width: int | None = None, height: int = 48) -> Image.Image:
    """A line of black text on white."""
    font = ImageFont.load_default(size=size)
    image = Image.new("RGB", (width or int(font.getlength(text)) + 24, height), "white")
    ImageDraw.Draw(image).text((12, height // 2), text, fill="black", font=font, anchor="lm")
    return image


def page(lines: list[str], width: int = 640) -> Image.Image:
    """Lines of text below each other."""
    image = Image.new("RGB", (width, 80 * len(lines) + 32), "white")
    for place, text in enumerate(lines):
        ImageDraw.Draw(image).text((40, 80 * place + 32), text, fill="black", font=ImageFont.load_default(size=40))
    return image


def photo(folder: Folder, name: str) -> Image.Image:
    """A photograph that scikit-image ships, `astronaut.png` or `chelsea.png` (a cat)."""
    return Image.open(folder.file(f"python/skimage/data/{name}")).convert("RGB")


def planes(image: Image.Image, mean: Any = 0.0, deviation: Any = 1.0, scale: float = 255.0) -> NDArray[np.float32]:
    """Pixels as float32[1, 3, H, W]: over `scale`, less the mean, over the deviation."""
    pixels = np.asarray(image, dtype=np.float32) / np.float32(scale)
    normal = (pixels - np.asarray(mean, np.float32)) / np.asarray(deviation, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], dtype=np.float32)
