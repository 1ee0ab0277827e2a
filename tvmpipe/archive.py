"""The files in a `.tar` that somebody else made, without trust in what it says of itself."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias, cast

from tvmpipe.errors import BundleError
from tvmpipe.text import clean

_PIECE_BYTES = 1 << 20
_MOST_MEMBERS = 100_000
_SHOWN = 200  # characters of a name in a sentence

Members: TypeAlias = Mapping[str, tuple[int, Callable[[], Iterator[bytes]]]]
"""Name in the archive -> the size of the file, and a function that reads it piece by piece."""


@contextlib.contextmanager
def tar_members(stream: BinaryIO, path: Path) -> Iterator[Members]:
    """The files of the archive `stream`, of which nothing is read yet; `path` is for messages.

    Raises BundleError, in the block too, when it is no archive, or holds links, devices, sparse files, one name twice
    or names that lead out of it. Reading takes a fixed amount of memory, and gives no more bytes than the archive has.
    """
    guarded = cast(BinaryIO, _Guarded(stream))
    try:
        with tarfile.open(fileobj=guarded, mode="r:", errorlevel=2) as archive:
            yield dict(_files(archive, path))
    except BundleError:
        raise
    # What tarfile raises for damaged archives; it calls itself for headers that go on in the next one.
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        raise BundleError(f"{path} is not a bundle: {clean(error)[:_SHOWN] or type(error).__name__}") from None


def _files(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[str, tuple[int, Callable[[], Iterator[bytes]]]]]:
    seen: set[str] = set()
    last = -1
    for count, member in enumerate(archive):
        name = PurePosixPath(member.name)
        shown = clean(member.name)[:_SHOWN]
        if count >= _MOST_MEMBERS:
            raise BundleError(f"{path} is not a bundle: it holds more than {_MOST_MEMBERS} files")
        if member.offset <= last or member.size < 0:
            raise tarfile.ReadError("it says that a file ends before it begins")
        last = member.offset
        if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()) or member.issparse():
            raise BundleError(f"{path} is not a bundle: it may not hold {shown}")
        if member.isdir():
            continue  # a file says itself in which folder it lies
        if str(name) in seen:
            raise BundleError(f"{path} is not a bundle: it holds {shown} twice")
        seen.add(str(name))
        yield str(name), (member.size, lambda member=member: _pieces(archive, member))  # type: ignore[misc]


def _pieces(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{clean(member.name)[:_SHOWN]} is no file")
    left = member.size
    with file:
        while piece := file.read(min(_PIECE_BYTES, left)):
            left -= len(piece)
            yield piece
    if left:
        raise tarfile.ReadError("unexpected end of data")


class _Guarded:
    """A stream of which nobody reads much at once: headers say how long they are, and tarfile believes them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.name = getattr(stream, "name", None)

    def read(self, size: int = -1) -> bytes:
        """As a file's; raises tarfile.ReadError for more than any honest header or piece takes."""
        if not 0 <= size <= _PIECE_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._stream.tell()
