"""The cluster key: one secret that every machine of a cluster holds, and what is derived from it.

Whoever has the file may run code on every agent of the cluster; nobody else may. Both transports are keyed from it:
TLS in front of TVM RPC, CURVE on the stage links. Each gets a secret of its own by HKDF (RFC 5869), so that
neither tells anything about the other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import ssl
import stat
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import zmq
from zmq.utils import z85

from tvmpipe.errors import InputError
from tvmpipe.runtime.security.certificates import Certificates, certificates_from_child, make_certificates

ALPN = "tvmpipe-rpc-1"  # what both ends of a TLS connection must name in the TLS handshake

_HEADER = "tvmpipe-cluster-key-1"
_SECRET_BYTES = 32
_LONGEST_FILE = 1024


@dataclass(frozen=True)
class ClusterKey:
    """32 secret bytes. Two machines accept each other exactly when theirs are equal."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != _SECRET_BYTES:
            raise ValueError(f"a cluster key has {_SECRET_BYTES} bytes, not {len(self.secret)}")

    @classmethod
    def generate(cls, path: Path) -> ClusterKey:
        """Make a new key and write it to `path`, for the owner's eyes only (mode 0600).

        The file appears whole or not at all. Raises InputError when it exists or cannot be written.
        """
        key = cls(secrets.token_bytes(_SECRET_BYTES))
        try:
            # Created with mode 0600. A link, unlike a rename, fails when the name is taken.
            descriptor, name = tempfile.mkstemp(prefix=".tvmpipe-key-", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(f"{_HEADER} {base64.b64encode(key.secret).decode()}\n".encode())
                    file.flush()
                    os.fsync(file.fileno())
                os.link(name, path)
            finally:
                os.unlink(name)
        except FileExistsError:
            raise InputError(
                f"{path} exists already; a cluster key is never overwritten, choose another name"
            ) from None
        except OSError as error:
            raise InputError(f"cluster key {path} cannot be written: {error.strerror or error}") from None
        return key

    @classmethod
    def load(cls, path: Path) -> ClusterKey:
        """Read a key file. Raises InputError when it is missing or malformed, or when others may read or change it."""
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(_LONGEST_FILE + 1)
        except FileNotFoundError:
            raise InputError(f"there is no cluster key {path}; make one with `tvmpipe key {path}`") from None
        except OSError as error:
            raise InputError(f"cluster key {path} cannot be read: {error.strerror or error}") from None
        words = text.split()
        secret = b""
        if len(text) <= _LONGEST_FILE and len(words) == 2 and words[0] == _HEADER.encode():
            with contextlib.suppress(binascii.Error):  # leaves the secret empty, which is reported below
                secret = base64.b64decode(words[1], validate=True)
        if len(secret) != _SECRET_BYTES:
            raise InputError(
                f"{path} is not a cluster key: it must be one line, `{_HEADER}` and {_SECRET_BYTES} bytes in base64"
            )
        if mode & 0o077:
            raise InputError(
                f"cluster key {path} is open to other users (mode {stat.S_IMODE(mode):04o}), who may have read it: "
                f"`chmod 600 {path}`, and make another key if somebody else uses this machine"
            )
        return cls(secret)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits to compare keys by; they do not give the key away."""
        return self._derive("fingerprint", 8).hex()

    @cached_property
    def curve_secret(self) -> bytes:
        """The cluster's CURVE secret key, as ZeroMQ takes it (z85, 40 bytes)."""
        encoded: bytes = z85.encode(self._derive("curve"))
        return encoded

    @cached_property
    def curve_public(self) -> bytes:
        """The public key to `curve_secret` (z85, 40 bytes). It is the identity of clients and servers alike."""
        return zmq.curve_public(self.curve_secret)

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.3 for the accepting side, which asks the other for a certificate under this key.

        Its certificates come from a child process. Raises OSError when that cannot be started, RuntimeError when it
        fails.
        """
        context = _context(ssl.PROTOCOL_TLS_SERVER, certificates_from_child(self._derive("tls")))
        context.num_tickets = 0  # sessions are never resumed: each proves the key anew
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS 1.3 for the connecting side. Who the server is, is decided by the key, not by its host name."""
        return _context(ssl.PROTOCOL_TLS_CLIENT, make_certificates(self._derive("tls")))

    def _derive(self, purpose: str, size: int = 32) -> bytes:
        """`size` bytes, 32 at most, that follow from the key and from what they are for: HKDF-SHA256 without a salt."""
        info = f"{_HEADER} {purpose}".encode()
        extracted = hmac.digest(bytes(hashlib.sha256().digest_size), self.secret, "sha256")
        return hmac.digest(extracted, info + b"\x01", "sha256")[:size]


def _context(protocol: int, certificates: Certificates) -> ssl.SSLContext:
    """Both sides present a certificate signed with the cluster's key and accept only such."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN])
    context.load_verify_locations(cadata=certificates.root)
    # The ssl module takes a private key only from a file; what reaches the disk is of no use without the password.
    with tempfile.TemporaryDirectory(prefix="tvmpipe-") as folder:
        chain = Path(folder, "chain.pem")
        chain.touch(mode=0o600)
        chain.write_text(certificates.chain, encoding="ascii")
        context.load_cert_chain(chain, password=certificates.password)
    return context
