"""What a head and a device tell each other when files are to be brought."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tvmpipe.runtime.device.stored_file import StoredFile


class Transfer(BaseModel):
    """What a device is told when a transfer begins.

    Attributes: `device` its name; `head` where the head listens, as HOST:PORT; `token` hex digits that every message
    carries; `files` all that the transfer is about, and the places in them of those that are `wanted` here; `hashes`
    of the chunks of files that were begun earlier, by place, in hex; `port` where it listens for other devices.
    """

    model_config = ConfigDict(frozen=True)

    device: str
    head: str
    token: str
    files: tuple[StoredFile, ...]
    wanted: tuple[int, ...]
    hashes: dict[int, tuple[str, ...]] = {}
    port: int


class Begun(BaseModel):
    """What it answers.

    Attributes: `serves` whether others can take chunks from it; `whole` and `there`: the files that it has, and the
    chunks that it has of others, by their places.
    """

    model_config = ConfigDict(frozen=True)

    serves: bool
    whole: tuple[int, ...]
    there: dict[int, tuple[int, ...]]
