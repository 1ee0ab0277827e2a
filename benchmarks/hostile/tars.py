"""Archives that somebody made: headers changed with a checksum that fits, headers that extend others, bytes changed."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import tvmpipe
from benchmarks.hostile.row import Options, Row
from benchmarks.hostile.sample import write_sample
from benchmarks.hostile.sandbox import Attempt, try_all
from tvmpipe.bundle import MANIFEST, SEAL

_BLOCK = 512
# Fields of a header: where they begin and how long they are.
_FIELDS = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12), "link": (157, 100)}
_FIELDS |= {"kind": (156, 1), "magic": (257, 8), "prefix": (345, 155), "sparse": (386, 96)}
_KINDS = b"01234567xgLKSVMNDAX\0 "
_NAMES = (
    *("../evil", "/etc/passwd", "a/../../b", ".", "", "manifest.json", "./manifest.json", "stages/s0.so", "stages"),
    *("d/" * 49, "n" * 100, "\x1b[2J", "new\nline", "\udcff", "[/b]", "a\\b"),
)


def check(options: Options) -> Iterator[Row]:
    """Changes of headers, and of bytes, of archives in three formats."""
    with tempfile.TemporaryDirectory(prefix="tvmpipe-hostile-") as folder:
        root = Path(folder) / "bundle"
        root.mkdir()
        bundle = write_sample(root)
        bases = [bundle.save(Path(folder) / "saved.tar").read_bytes(), *(_packed(root, kind) for kind in (0, 1, 2))]
        path = Path(folder) / "mutated.tar"
        for door, mutate in (("tar: headers", change_headers), ("tar: bytes", change_bytes)):

            def prepare(number: int, mutate: Callable[[bytes, random.Random], bytes] = mutate) -> Attempt:
                rng = random.Random(f"{options.seed} {number}")
                path.write_bytes(mutate(rng.choice(bases), rng))
                return Attempt(lambda: _load(path), path.stat().st_size)

            yield try_all(door, prepare, options)


def _load(path: Path) -> None:
    """Raises ValueError when anything lies there then but what the manifest lists."""
    loaded = tvmpipe.load(path)
    listed = {MANIFEST, SEAL, *(entry.path for entry in loaded.manifest.files)}
    there = {file.relative_to(loaded.root).as_posix() for file in loaded.root.rglob("*") if file.is_file()}
    if there != listed:
        raise ValueError(f"extracted {sorted(there ^ listed)}")


def _packed(root: Path, kind: int) -> bytes:
    """As other programs pack it: with folders, in the formats ustar, GNU and pax."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:", format=kind) as archive:
        archive.add(root, ".")
    return made.getvalue()


def change_headers(base: bytes, rng: random.Random) -> bytes:
    """One to five changes of headers, each with a checksum that fits."""
    blocks = [base[at : at + _BLOCK] for at in range(0, len(base), _BLOCK)]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        headers = [number for number, block in enumerate(blocks) if block[257:262] == b"ustar"]
        if not headers:
            break
        at = rng.choice(headers)
        kind = rng.randrange(8)
        if kind < 4:
            blocks[at] = _with_field(blocks[at], rng)
        elif kind == 4:
            blocks[at:at] = _extension(rng)
        elif kind == 5:
            other = rng.choice(headers)
            blocks[at:at] = blocks[other : other + rng.choice((1, 2, 5))]
        elif kind == 6:
            del blocks[at : at + rng.choice((1, 2, 4))]
        else:
            blocks[at:at] = [_with_field(blocks[at], rng)] * rng.choice((1, 3, 2000))
    return b"".join(blocks)


def change_bytes(base: bytes, rng: random.Random) -> bytes:
    """Bytes changed, blocks cut out, doubled, cleared, or the end cut off."""
    data = bytearray(base)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        at = rng.randrange(len(data))
        block = at // _BLOCK * _BLOCK
        kind = rng.randrange(6)
        if kind < 2:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[block : block + _BLOCK]
        elif kind == 3:
            data[block:block] = data[block : block + _BLOCK * rng.choice((1, 4))]
        elif kind == 4:
            data[block : block + _BLOCK] = bytes(_BLOCK)
        else:
            del data[at:]
    return bytes(data)


def _with_field(block: bytes, rng: random.Random) -> bytes:
    name = rng.choice(sorted(_FIELDS))
    start, length = _FIELDS[name]
    if name == "kind":
        value = bytes([rng.choice(_KINDS)])
    elif name in ("name", "link", "prefix"):
        value = rng.choice(_NAMES).encode(errors="surrogateescape")
    elif name in ("size", "mode", "mtime"):
        value = _number(rng, length)
    else:
        value = rng.choice((b"ustar\x0000", b"ustar  \0", b"\0" * 8, rng.randbytes(length)))
    return _sealed(block[:start] + value[:length].ljust(length, b"\0") + block[start + length :])


def _number(rng: random.Random, length: int) -> bytes:
    """Octal digits, or two's complement behind a byte that says so: negative, and larger than any disk."""
    if rng.random() < 0.5:
        return oct(rng.choice((0, 1, 511, 512, 513, 10_000, 8**11 - 1)))[2:].encode().rjust(length - 1, b"0") + b"\0"
    large = rng.choice((-1, -512, -513, -1024, -(2**40), 2**33, 2**62, 2**80))
    return bytes([0x80 if large >= 0 else 0xFF]) + int(large % (1 << 8 * (length - 1))).to_bytes(length - 1, "big")


def _extension(rng: random.Random) -> list[bytes]:
    """A header that says something of the next one, with its data: pax records, long names, a map of holes."""
    kind = rng.choice(b"xgLKSXN")
    records = {
        **rng.choice(({"path": rng.choice(_NAMES)}, {"size": str(rng.choice((-1, 0, 10**6, 10**12, 10**30)))}, {})),
        **rng.choice(
            (
                {},
                {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(3 << 30)},
                {"GNU.sparse.map": "0,1,3000000000,0", "GNU.sparse.size": str(3 << 30)},
                {"GNU.sparse.numblocks": "9", "GNU.sparse.offset": "x"},
                {"hdrcharset": "BINARY", "uname": "\udcff"},
                {"mtime": rng.choice(("nan", "1e400", "x", "-1"))},
                {"linkpath": "/etc/passwd"},
            )
        ),
    }
    data = b"".join(_record(name, value) for name, value in records.items())
    if rng.random() < 0.3:
        data = rng.choice(
            (b"x" * 5000, b"99999999999 a=b\n", b"0 a=b\n", b"-5 a=b\n", b"5 a\n", b"\n", rng.randbytes(600))
        )
    info = tarfile.TarInfo("././@extension")
    info.type, info.size = bytes([kind]), rng.choice((len(data), len(data), 0, 1 << 20, 1 << 30))
    padded = data.ljust(-(-len(data) // _BLOCK) * _BLOCK, b"\0")
    return [info.tobuf(tarfile.GNU_FORMAT), *(padded[at : at + _BLOCK] for at in range(0, len(padded), _BLOCK))]


def _record(name: str, value: str) -> bytes:
    text = f" {name}={value}\n".encode(errors="surrogateescape")
    length = len(text) + len(str(len(text) + 2))
    return str(length).encode() + text


def _sealed(block: bytes) -> bytes:
    """The header with its checksum: the sum of its bytes, with spaces in place of the sum."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + f"{total:06o}\0 ".encode() + block[156:]
