"""What a processor says that it can do."""

from __future__ import annotations

from pathlib import Path

from tvmpipe.runtime.device.processor import processor_features


def test_features_are_called_as_llvm_calls_them(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("processor\t: 0\nflags\t\t: fpu pni sse4_1 avx2 abm\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd atomics asimddp\n")
    assert processor_features(x86) == ["avx2", "fpu", "lzcnt", "sse3", "sse4.1"]
    assert processor_features(arm) == ["asimd", "dotprod", "fp", "lse"]
    assert processor_features(tmp_path / "none") == []
