"""Certificates for tests: right ones, and wrong in every way."""

import atexit
import datetime
import functools
import shutil
import tempfile
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from tfleet.wire.tls import Tls

NAME = "ps.of.this.job"
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
LONG_SINCE = datetime.datetime(2002, 1, 1, tzinfo=datetime.UTC)
FAR = datetime.datetime(2096, 1, 1, tzinfo=datetime.UTC)
VERY_FAR = datetime.datetime(2098, 1, 1, tzinfo=datetime.UTC)


@functools.cache
def authority(name="the job"):
    """Returns the CA of this name: the same in one process."""
    return trustme.CA(organization_name=name)


@functools.cache
def folder():
    """Returns a folder that is removed at the end."""
    made = tempfile.mkdtemp(prefix="tfleet-certificates-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


@functools.cache
def files(*names, ca="the job", valid="now"):
    """Makes certificate, key and CA; returns the fields of a job that name them."""
    dates = {"expired": (LONG_AGO, LONG_SINCE), "later": (FAR, VERY_FAR), "now": (None, None)}[valid]
    made = authority(ca).issue_cert(*(names or (NAME, "127.0.0.1")), not_before=dates[0], not_after=dates[1])
    at = Path(tempfile.mkdtemp(dir=folder()))
    paths = {"tls_cert": at / "tls.crt", "tls_key": at / "tls.key", "tls_ca": at / "ca.crt"}
    paths["tls_cert"].write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    paths["tls_key"].write_bytes(made.private_key_pem.bytes())
    authority(ca).cert_pem.write_to_path(str(paths["tls_ca"]))
    return {field: str(path) for field, path in paths.items()}


@functools.cache
def encrypted_key(key):
    """Returns a file with the key in `key`, encrypted."""
    plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    there = Path(key).with_name("encrypted.key")
    there.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a passphrase"),
        )
    )
    return str(there)


def tls(*names, server_name="", **how):
    """Returns what a replica with such files has."""
    given = files(*names, **how)
    return Tls(given["tls_cert"], given["tls_key"], given["tls_ca"], server_name)
