"""The secret of a cluster: read back, refused when not whole or not private, and what it signs."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from launcher.certificates import write_tls
from launcher.erlang import write_private
from launcher.processes import Refused
from launcher.secret import Secret


def test_what_is_printed_can_be_read_again() -> None:
    secret = Secret.new()
    assert len(secret.key) == 32
    assert Secret.parse(f"  {secret.text()}\n") == secret
    assert Secret.new() != secret


def test_a_mistyped_character_is_noticed() -> None:
    text = Secret.new().text()
    wrong = text[:20] + ("0" if text[20] != "0" else "1") + text[21:]
    for bad in (wrong, text[:-1], "", "hunter2", text + "0"):
        with pytest.raises(Refused, match="copy the whole line"):
            Secret.parse(bad)


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path, secret = tmp_path / "baguette" / "secret", Secret.new()
    secret.write(path)
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert Secret.read(path) == secret
    path.chmod(0o440)
    with pytest.raises(Refused, match="readable by nobody else"):
        Secret.read(path)


def test_a_damaged_file_is_told_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, "baguette-")
    with pytest.raises(Refused, match=re.escape(str(path))):
        Secret.read(path)


def test_keys_depend_on_secret_and_label() -> None:
    one, other = Secret.new(), Secret.new()
    assert one.derived("a") == one.derived("a")
    assert len({one.derived("a"), one.derived("b"), other.derived("a"), one.key}) == 4
    assert re.fullmatch("[0-9a-f]{64}", one.cookie())


def test_the_secret_does_not_show_in_a_traceback() -> None:
    secret = Secret.new()
    assert secret.key.hex() not in repr(secret)


def _context(options: Path, side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False  # Erlang compares the address with the DNS name, OpenSSL not
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(options.with_name("node.pem"), options.with_name("node.key"))
    context.load_verify_locations(options.with_name("authority.pem"))
    return context


def _handshake(server: Path, client: Path) -> None:
    """In memory; raises ssl.SSLError where one side refuses the other."""
    pipes = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ends = [
        _context(server, ssl.PROTOCOL_TLS_SERVER).wrap_bio(pipes[0], pipes[1], server_side=True),
        _context(client, ssl.PROTOCOL_TLS_CLIENT).wrap_bio(pipes[1], pipes[0]),
    ]
    done: set[int] = set()
    while len(done) < 2:
        for number in (1, 0):
            try:
                ends[number].do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue


def test_certificates_of_one_secret_trust_each_other_and_no_others(tmp_path: Path) -> None:
    secret = Secret.new()
    one = write_tls(secret, "10.0.0.1", tmp_path / "one")
    two = write_tls(secret, "10.0.0.2", tmp_path / "two")
    stranger = write_tls(Secret.new(), "10.0.0.3", tmp_path / "three")
    _handshake(one, two)
    authorities = [options.with_name("authority.pem").read_bytes() for options in (one, two)]
    assert authorities[0] == authorities[1]
    for server, client in ((one, stranger), (stranger, one)):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            _handshake(server, client)
    for file in (tmp_path / "one").iterdir():
        assert file.stat().st_mode & 0o777 == 0o400
