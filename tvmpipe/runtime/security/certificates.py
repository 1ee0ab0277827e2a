"""Certificates of the two sides of a TLS connection: `python -m tvmpipe.runtime.security.certificates` prints them.

It reads 32 bytes from which the signer's key follows. What makes certificates takes 9 MB of memory that an agent, which
needs them once, would keep for as long as it runs.
"""

from __future__ import annotations

import datetime
import json
import secrets
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# Boards without a battery start in 1970, and a key holds until it is replaced (RFC 5280, 4.1.2.5).
_NOT_BEFORE = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class Certificates:
    """In PEM: the cluster's `root`, and `chain`, a private key under a `password` and the certificate to it."""

    root: str
    chain: str = field(repr=False)
    password: str = field(repr=False)


def make_certificates(seed: bytes) -> Certificates:
    """A certificate for a fresh key, signed with the key that follows from `seed`, which a peer trusts that has it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signer = Ed25519PrivateKey.from_private_bytes(seed)
    own = Ed25519PrivateKey.generate()
    root = _certificate("tvmpipe cluster", signer.public_key(), signer, is_root=True)
    leaf = _certificate("tvmpipe peer", own.public_key(), signer, is_root=False)
    password = secrets.token_bytes(32).hex()
    private = own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    chain = private + leaf.public_bytes(serialization.Encoding.PEM)
    return Certificates(root.public_bytes(serialization.Encoding.PEM).decode(), chain.decode(), password)


def certificates_from_child(seed: bytes) -> Certificates:
    """The same from a process of its own. Raises OSError when it cannot be started, RuntimeError when it fails."""
    command = [sys.executable, "-m", "tvmpipe.runtime.security.certificates"]
    done = subprocess.run(command, input=seed, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise RuntimeError(f"certificates could not be made (exit code {done.returncode})")
    return Certificates(**json.loads(done.stdout))


def _certificate(name: str, public: Ed25519PublicKey, signer: Ed25519PrivateKey, *, is_root: bool) -> x509.Certificate:
    """A certificate of the cluster: its root, which signs itself, or a peer's."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    usage = {
        usage: False
        for usage in (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        )
    }  # fmt: skip
    usage["key_cert_sign" if is_root else "digital_signature"] = True
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("tvmpipe cluster"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_root:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(signer, None)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(make_certificates(sys.stdin.buffer.read()))))
