"""Samples from files and at random, few or many."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tvmpipe.bundle import Bundle
from tvmpipe.commands import samples
from tvmpipe.commands.samples import Samples, random_samples
from tvmpipe.errors import SampleError


@pytest.mark.parametrize("kept_bytes", [samples._KEPT_BYTES, 0])
def test_files_come_first_and_all_of_it_again(
    chain_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    """In memory or not, the same."""
    monkeypatch.setattr(samples, "_KEPT_BYTES", kept_bytes)
    np.save(tmp_path / "a.npy", np.full((4, 256), 1, np.float32))
    np.savez(tmp_path / "b.npz", x=np.full((4, 256), 2, np.float32))
    found = Samples(chain_bundle.manifest, [tmp_path / "a.npy", tmp_path / "b.npz"], random=3, seed=5, repeat=2)
    assert len(found) == 10
    for _ in range(2):  # it can be gone through again
        numbers = [sample["x"] for sample in found]
        assert len(numbers) == 10
        assert [array[0, 0] for array in numbers[:2]] == [1, 2]
        for array, sample in zip(numbers[2:5], random_samples(chain_bundle.manifest, 3, seed=5), strict=True):
            np.testing.assert_array_equal(array, sample["x"])
        for first, again in zip(numbers[:5], numbers[5:], strict=True):
            np.testing.assert_array_equal(first, again)


def test_many_samples_are_made_when_their_turn_comes(chain_bundle: Bundle) -> None:
    """Ten million would not fit."""
    found = Samples(chain_bundle.manifest, [], random=10_000_000, seed=0)
    assert len(found) == 10_000_000
    assert len(list(itertools.islice(found, 3))) == 3


def test_a_mistake_in_the_last_file_is_found_at_once(
    chain_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_KEPT_BYTES", 0)
    np.save(tmp_path / "good.npy", np.ones((4, 256), np.float32))
    np.save(tmp_path / "bad.npy", np.ones((4, 255), np.float32))
    with pytest.raises(SampleError, match=r"bad.npy: input 'x' has shape \[4, 255\]"):
        Samples(chain_bundle.manifest, [tmp_path / "good.npy", tmp_path / "bad.npy"], random=0, seed=0)
