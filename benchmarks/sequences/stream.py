"""A voice detector that follows an hour of sound: Silero VAD, whose state goes from each step to the next.

    python -m benchmarks.sequences.stream silero_vad.onnx [--hours 1] [--record]

The file is that of the PyPI package silero-vad; its `If` is on the sampling rate, which is fixed. Sound is made here:
tones that come and go, and noise. It goes through two devices in this process in steps of 32 ms, and through ONNX
Runtime with the state fed back. Exits with 1 where an answer differs by more than 1e-4.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
from numpy.typing import NDArray

import tvmpipe
from benchmarks.results_file import save
from benchmarks.sequences.running import cluster_of
from tvmpipe.commands.progress import count_progress
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.runtime.emulation.inprocess import run_in_process

RATE, NEW, BEFORE = 16_000, 512, 64  # samples a second, of a step, and of the step before that it is given again
_MOST = 1e-4


def sound(step: int) -> NDArray[np.float32]:
    """So many samples of a tone that changes, half of the time, in noise."""
    at = step * NEW + np.arange(NEW)
    pitch = 600 * (1 + np.sin(step / 300))
    tone = 0.3 * np.sin(2 * np.pi * pitch * at / RATE) * (np.sin(step / 50) > 0)
    noise = np.random.default_rng(step).standard_normal(NEW)
    return np.asarray(tone + 0.02 * noise, np.float32)


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--hours", default=1.0, help="Of sound.")
@click.option("--record", is_flag=True, help="Write benchmarks/results/sequences_stream.txt.")
def main(model: Path, hours: float, record: bool) -> None:
    """Follow made sound with MODEL."""
    reserve_stdout()
    shapes: dict[str, Any] = {"input": [1, BEFORE + NEW], "state": [2, 1, 128]}
    bundle = tvmpipe.build(model, cluster_of(["a", "b"]), shapes=shapes, values={"sr": RATE})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options)
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(BEFORE, np.float32)
    steps = round(hours * 3600 * RATE / NEW)
    worst, ours_s, theirs_s = 0.0, 0.0, 0.0
    answers = []
    with run_in_process(bundle) as pipe, pipe.sequence() as sequence:
        for step in count_progress(range(steps), "listening", steps):
            new = sound(step)
            samples = np.concatenate([before, new])[None]
            before = new[-BEFORE:]
            started = time.perf_counter()
            wanted, state = session.run(None, {"input": samples, "state": state, "sr": np.array(RATE)})
            middle = time.perf_counter()
            found = sequence.step({"input": samples})["output"]
            ours_s, theirs_s = ours_s + time.perf_counter() - middle, theirs_s + middle - started
            answers.append(float(wanted[0, 0]))
            worst = max(worst, abs(float(found[0, 0]) - answers[-1]))
    devices = ", ".join(bundle.manifest.plan.devices)
    text = (
        f"{steps} steps of 32 ms on {devices}: answers from {min(answers):.3f} to {max(answers):.3f}, the largest "
        f"difference {worst:.1e}; {1e6 * ours_s / steps:.0f} us a step, ONNX Runtime {1e6 * theirs_s / steps:.0f} us\n"
    )
    if record:
        save("sequences_stream.txt", text)
    click.echo(text, nl=False)
    sys.exit(worst > _MOST)


if __name__ == "__main__":
    main()
