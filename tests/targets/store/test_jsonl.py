"""Rows are on disk as a whole, or the user is told why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tvmpipe.errors import InputError
from tvmpipe.targets.store import jsonl

ROWS = [{"number": number} for number in range(20)]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "full.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"full\.jsonl cannot be written: No space left on device"):
        jsonl.append(path, ROWS)


def test_what_is_written_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, text: whole(descriptor, bytes(text)[:7]))
    jsonl.append(tmp_path / "rows.jsonl", ROWS)
    assert list(jsonl.read(tmp_path / "rows.jsonl", dict)) == ROWS
