"""The cluster key: its file, and who accepts whom over TLS."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tvmpipe.cli import cli
from tvmpipe.errors import InputError
from tvmpipe.runtime.security.keys import ALPN, ClusterKey

ONE = ClusterKey(b"1" * 32)
OTHER = ClusterKey(b"2" * 32)


def test_file_round_trip(tmp_path: Path) -> None:
    key = ClusterKey.generate(tmp_path / "key")
    assert ClusterKey.load(tmp_path / "key") == key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert (tmp_path / "key").read_text().count("\n") == 1
    assert os.listdir(tmp_path) == ["key"]
    assert ClusterKey.generate(tmp_path / "second") != key


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        ClusterKey.generate(path)
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["key"]
    with pytest.raises(InputError, match="cannot be written"):
        ClusterKey.generate(tmp_path / "no" / "key")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tvmpipe-cluster-key-1",
        "tvmpipe-cluster-key-1 " + base64.b64encode(b"x" * 31).decode(),
        "tvmpipe-cluster-key-2 " + base64.b64encode(b"x" * 32).decode(),
        "tvmpipe-cluster-key-1 " + base64.b64encode(b"x" * 32).decode() + " more",
        "tvmpipe-cluster-key-1 " + "*" * 44,
        "tvmpipe-cluster-key-1 " + "A" * 5000,
        "\0\xff" * 40,
    ],
)
def test_malformed_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_bytes(text.encode("latin-1"))
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(InputError, match="is not a cluster key"):
        ClusterKey.load(tmp_path / "key")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no cluster key"):
        ClusterKey.load(tmp_path / "key")
    with pytest.raises(InputError, match="cannot be read"):
        ClusterKey.load(tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    ClusterKey.generate(path)
    path.chmod(mode)
    sentence = rf"cluster key .* is open to other users \(mode {mode:04o}\), .*: `chmod 600 {path}`"
    with pytest.raises(InputError, match=sentence):
        ClusterKey.load(path)
    path.chmod(0o400)
    ClusterKey.load(path)


def test_an_agent_refuses_such_a_file(tmp_path: Path) -> None:
    ClusterKey.generate(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    arguments = ["agent", "--tracker", "127.0.0.1:1", "--key", "a", "--cluster-key", str(tmp_path / "key")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "is open to other users (mode 0644)" in result.stderr


def test_what_is_derived() -> None:
    """Equal for equal keys, different for each purpose, and nothing that is shown gives the secret away."""
    again = ClusterKey(ONE.secret)
    assert (again.curve_secret, again.curve_public, again.fingerprint) == (
        ONE.curve_secret,
        ONE.curve_public,
        ONE.fingerprint,
    )
    assert len({ONE.curve_secret, ONE.curve_public, OTHER.curve_secret, OTHER.curve_public}) == 4
    assert ONE.fingerprint != OTHER.fingerprint
    assert "1111" not in repr(ONE)
    assert ONE._derive("tls") != ONE._derive("curve")
    with pytest.raises(ValueError, match="has 32 bytes"):
        ClusterKey(b"short")


@pytest.mark.parametrize(("purpose", "size"), [("tls", 32), ("fingerprint", 8)])
def test_secrets_are_derived_as_rfc_5869_says(purpose: str, size: int) -> None:
    info = f"tvmpipe-cluster-key-1 {purpose}".encode()
    expected = HKDF(algorithm=hashes.SHA256(), length=size, salt=None, info=info).derive(ONE.secret)
    assert ONE._derive(purpose, size) == expected


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[Exception | None, str | None]:
    """What the server's side of a handshake raised, and the protocol that was agreed on."""
    left, right = socket.socketpair()
    left.settimeout(5)
    right.settimeout(5)

    def connect() -> None:
        try:
            with client.wrap_socket(right) as tls:
                tls.recv(1)
        except OSError:
            right.close()

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        with server.wrap_socket(left, server_side=True) as tls:
            return None, tls.selected_alpn_protocol()
    except OSError as error:
        return error, None
    finally:
        left.close()
        thread.join()


def test_tls_between_holders_of_one_key() -> None:
    assert handshake(ONE.server_context(), ClusterKey(ONE.secret).client_context()) == (None, ALPN)


def test_tls_refuses_everybody_else() -> None:
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.verify_mode = ssl.CERT_NONE
    careless = OTHER.client_context()
    careless.verify_mode = ssl.CERT_NONE
    old = ONE.client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for client in (OTHER.client_context(), careless, anonymous, old):
        assert isinstance(handshake(ONE.server_context(), client)[0], ssl.SSLError)


def test_a_client_refuses_an_impostor() -> None:
    """A server that takes everybody still does not get a client of the cluster to talk to it."""
    impostor = OTHER.server_context()
    impostor.verify_mode = ssl.CERT_NONE
    assert isinstance(handshake(impostor, ONE.client_context())[0], ssl.SSLError)


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ONE.server_context()
    assert not os.listdir(tmp_path)


def test_key_command(tmp_path: Path) -> None:
    path = tmp_path / "key"
    done = CliRunner().invoke(cli, ["key", str(path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"path": str(path), "fingerprint": ClusterKey.load(path).fingerprint}
    assert CliRunner().invoke(cli, ["key", str(path)]).exit_code == 1
