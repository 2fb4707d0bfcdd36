"""Mutual authentication by a per-job token: each side proves that it knows the token, neither sends it.

The proof is HMAC-SHA256 (RFC 2104) over both sides' fresh nonces and the prover's side, so a proof can be neither
replayed nor reflected. It tells who connects; without TLS later frames are not authenticated one by one.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from tfleet.spec.errors import WrongInput

NONCE = 32
PROOF = 32


def nonce() -> bytes:
    """Returns 32 fresh random bytes."""
    return os.urandom(NONCE)


def prove(token: bytes, side: bytes, first: bytes, second: bytes) -> bytes:
    """Returns the proof of `side` (b"client" or b"server") over the client's and the server's nonce."""
    return hmac.digest(token, b"tfleet " + side + b"\0" + first + second, "sha256")


def proven(token: bytes, side: bytes, first: bytes, second: bytes, proof: bytes) -> bool:
    """Tells, in constant time, whether `proof` is the right one."""
    return hmac.compare_digest(prove(token, side, first, second), proof)


def read_token(path: Path | str, given: str = "in TFLEET_TOKEN_FILE") -> bytes:
    """Reads a job's token.

    Args:
        path: of the file.
        given: how the user says which file, for the message.

    Raises:
        WrongInput: when the file cannot be read or is empty.
    """
    try:
        token = Path(path).read_bytes().strip()
    except OSError as error:
        raise WrongInput(
            f"the token file {path} cannot be read: {error.strerror}; give a readable file {given}"
        ) from None
    if not token:
        raise WrongInput(f"the token file {path} is empty; write the job's token into it")
    return token
