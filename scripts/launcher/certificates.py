"""TLS for the distribution where nothing else encrypts it (a LAN): certificates from the secret.

Every machine derives the same certificate authority from the cluster's secret and signs its own
certificate with it, so nothing but the secret has to be carried, and a machine with another secret
is refused in the handshake. Erlang checks the peer's address against a DNS name in its
certificate, also where it is an IP address.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from launcher.erlang import term, write_private
from launcher.secret import Secret

# The order of the group of P-256 (FIPS 186-5): private keys are 1 .. ORDER - 1.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# Clocks of home machines are wrong: validity is no defence here, the secret is.
_BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
_AUTHORITY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "baguette cluster")])


def write_tls(secret: Secret, host: str, directory: Path) -> Path:
    """Key, certificates and distribution options for a node at `host`; the options' path."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = _authority_key(secret)
    own = ec.generate_private_key(ec.SECP256R1())
    files = {
        "authority.pem": _pem(_authority(authority)),
        "node.pem": _pem(_node(own, host, authority)),
        "node.key": own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }
    for name, content in files.items():
        write_private(directory / name, content.decode("ascii"))
    options = directory / "distribution.config"
    write_private(options, _options(directory))
    return options


def _authority_key(secret: Secret) -> ec.EllipticCurvePrivateKey:
    # 512 bits reduced: the bias of the remainder is below 2^-256.
    wide = secret.derived("certificate authority 1") + secret.derived("certificate authority 2")
    scalar = int.from_bytes(wide, "big") % (_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The same bytes on every machine: Erlang takes a root that differs for an intermediate."""
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _builder(_AUTHORITY, key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )


def _node(
    key: ec.EllipticCurvePrivateKey, host: str, authority: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    return (
        _builder(subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(authority, hashes.SHA256())
    )


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_AUTHORITY)
        .public_key(key)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _options(directory: Path) -> str:
    """Erlang's -ssl_dist_optfile: both sides show a certificate and both are checked."""
    names = (("certfile", "node.pem"), ("keyfile", "node.key"), ("cacertfile", "authority.pem"))
    files = "".join(f"{{{name}, {term(str(directory / file))}}}, " for name, file in names)
    common = f"{files}{{verify, verify_peer}}, {{versions, ['tlsv1.3']}}"
    return f"[{{server, [{common}, {{fail_if_no_peer_cert, true}}]}},\n {{client, [{common}]}}].\n"
