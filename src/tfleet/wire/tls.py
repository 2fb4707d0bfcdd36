"""TLS 1.3 with a certificate on both sides (RFC 8446), for connections by TCP: below the frames and the token's proof.

Every replica has a certificate that the job's CA has signed, and accepts no other. Who connects compares the name in
the certificate too: that of the job where it has one (`tls_server_name`), since the ps announce addresses that no
certificate can know before, else the host that is connected to.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any, NoReturn

from tfleet.spec.errors import WrongInput

CHUNK = 1 << 18
"""Bytes handed to OpenSSL at once: many records for one call."""
TOGETHER = 1 << 14
"""Parts that are not larger go into one record with what follows: OpenSSL's is 16 KB."""
EXPIRED, NOT_YET, WRONG_HOST, WRONG_ADDRESS = 10, 9, 62, 64
UNSIGNED = (2, 18, 19, 20, 21)
"""OpenSSL's codes (X509_V_ERR_...) for a certificate that none of the given CAs has signed."""


class TlsSocket(ssl.SSLSocket):
    """A socket that reads and writes as others do: by buffers, and with `BlockingIOError` where it would block.

    Attributes:
        peer: who is at the other end, for the client's errors; empty: this is the server's end.
        heard: whether anything came by it: until then the server may still refuse the client's certificate.
    """

    peer = ""
    heard = False

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Reads what there is, one record at most; 0 at the end.

        Raises:
            WrongInput: when the server refuses this client's certificate.
            OSError: when the connection is lost; BlockingIOError when nothing is there.
        """
        try:
            count = self.read(nbytes or len(buffer), buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLError as error:
            if self.peer and not self.heard:
                raise _refused(error, self.peer) from None
            raise
        self.heard = True
        return int(count)

    def sendmsg(self, buffers: Any, *_: Any) -> int:  # type: ignore[override]
        """Sends the start of the buffers; returns how much of them.

        A call that would have blocked must be followed by one with the same buffers, or more.

        Raises:
            OSError: when the connection is lost; BlockingIOError when the system takes no more now.
        """
        try:
            return self.send(_head(buffers))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """Shuts the connection down, below TLS: a thread that reads sees its end, and never what is not decrypted."""
        socket.socket.shutdown(self, how)


class Tls:
    """The certificates of one replica, read again when their files change, so that they may be renewed meanwhile.

    Args:
        cert: file of the certificate, with those between it and the CA; PEM.
        key: file of its private key; PEM, not encrypted.
        ca: file of the certificates that are trusted; PEM.
        server_name: in the certificate of every ps; empty: the host that is connected to.
    """

    def __init__(self, cert: str, key: str, ca: str, server_name: str = "") -> None:
        self._files = {"tls_cert": cert, "tls_key": key, "tls_ca": ca}
        self._name = server_name
        self._read: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
        self._stamp: Any = None

    def check(self, host: str = "") -> None:
        """Reads the files and shakes hands with itself, in memory.

        Args:
            host: by which others reach this replica: the certificate must have it, or the job's server name; empty:
                it only connects.

        Raises:
            WrongInput: when a file cannot be used, or a peer would refuse the certificate.
        """
        self._shake(*self._contexts(), (self._name or host) if host else "")

    def connect(self, sock: socket.socket, host: str, peer: str) -> TlsSocket:
        """Shakes hands as a client; blocks for a round trip, as long as the socket's timeout.

        Args:
            sock: connected; closed when this fails.
            host: that was connected to.
            peer: how errors name it.

        Raises:
            WrongInput: when the peer has no valid certificate, or does not speak TLS.
            OSError: when the connection is lost.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            context = self._contexts()[0]
            try:
                made = context.wrap_socket(sock, server_hostname=self._name or host)
            except ssl.SSLCertVerificationError as error:
                raise WrongInput(self._why(error, f"the certificate of {peer}", self._name or host)) from None
            except ssl.SSLError as error:
                raise _refused(error, peer) from None
            undo.pop_all()
        assert isinstance(made, TlsSocket)
        made.peer = peer
        return made

    def accept(self, sock: socket.socket) -> TlsSocket:
        """Returns the server's end of a connection, which does not block; its handshake is still to come.

        Raises:
            OSError: when the connection is lost already.
        """
        sock.setblocking(False)
        made = self._contexts()[1].wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        assert isinstance(made, TlsSocket)
        return made

    def why_not(self, error: ssl.SSLError) -> str:
        """Says in a sentence why a client was not let in."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._why(error, "its certificate", "")
        if "PEER_DID_NOT_RETURN_A_CERTIFICATE" in (error.reason or ""):
            return "it has no certificate; give it tls_cert and tls_key"
        if alert := _alert(error):
            return f"it refuses the certificate of this ps ({alert}); give both certificates of one CA"
        return f"it speaks no TLS 1.3 ({_reason(error)}); give all replicas the same tls_cert, tls_key and tls_ca"

    def _shake(self, client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        asked = client.check_hostname
        what = f"the certificate in tls_cert {self._files['tls_cert']}"
        try:
            client.check_hostname = bool(name)
            ends = [client.wrap_bio(back, there, server_hostname=name or None)]
            ends.append(server.wrap_bio(there, back, server_side=True))
            while ends:
                for end in [*ends]:
                    with contextlib.suppress(ssl.SSLWantReadError):
                        end.do_handshake()
                        ends.remove(end)
        except ssl.SSLCertVerificationError as error:
            raise WrongInput(self._why(error, what, name)) from None
        except ssl.SSLError as error:
            raise WrongInput(f"{what} cannot be used for TLS 1.3: {_reason(error)}; give another one") from None
        except ValueError:
            raise WrongInput(f"tls_server_name {name!r} is no host name; give the name in the certificate") from None
        finally:
            client.check_hostname = asked

    def _contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """Returns how to be a client and a server; once the files were right, wrong ones are not taken over."""
        try:
            found = [os.stat(path) for path in self._files.values()]
            stamp: Any = [(f.st_ino, f.st_mtime_ns, f.st_size) for f in found]
        except OSError:
            stamp = None
        if self._read is None or stamp != self._stamp:
            try:
                self._read = self._context(ssl.PROTOCOL_TLS_CLIENT), self._context(ssl.PROTOCOL_TLS_SERVER)
                self._stamp = stamp
            except WrongInput:
                if self._read is None:
                    raise
        return self._read

    def _context(self, side: int) -> ssl.SSLContext:
        cert, key, ca = self._files.values()
        for field, path in self._files.items():
            _readable(field, path)
        context = ssl.SSLContext(side)
        context.sslsocket_class = TlsSocket
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.hostname_checks_common_name = False
        context.options |= ssl.OP_NO_TICKET
        if side == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        try:
            context.load_cert_chain(cert, key, password=lambda: _encrypted(key))
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                why = f"the key in tls_key {key} does not belong to the certificate in tls_cert {cert}"
            else:
                why = f"tls_cert {cert} or tls_key {key} is not PEM"
            raise WrongInput(f"{why}; give the certificate and the key that were made together") from None
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise WrongInput(f"tls_ca {ca} holds no certificate; give the PEM file of the CA") from None
        return context

    def _why(self, error: ssl.SSLCertVerificationError, what: str, name: str) -> str:
        code, ca = error.verify_code, self._files["tls_ca"]
        if code == EXPIRED:
            return f"{what}, or that of its CA, has expired; renew it"
        if code == NOT_YET:
            return f"{what}, or that of its CA, is not valid yet; wait, set the clock, or make a new one"
        if code in (WRONG_HOST, WRONG_ADDRESS):
            return f"{what} is not for {name}; give one that has this name, or a name that it has as tls_server_name"
        if code in UNSIGNED:
            return f"{what} is not signed by a CA in tls_ca {ca}; give the certificate and the file of one CA"
        if "purpose" in error.verify_message:
            return f"{what} is not for clients and servers both; make one with the usages 'server auth, client auth'"
        return f"{what} is refused: {error.verify_message}; give another one"


def _head(buffers: Sequence[memoryview]) -> bytearray | memoryview:
    first = memoryview(buffers[0]).cast("B")
    if len(first) >= TOGETHER or len(buffers) == 1:
        return first[:CHUNK]
    joined = bytearray()
    for part in buffers:
        joined += memoryview(part).cast("B")[: TOGETHER - len(joined)]
        if len(joined) == TOGETHER:
            break
    return joined


def _readable(field: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise WrongInput(
            f"{field} {path} cannot be read: {error.strerror}; give a PEM file that this user may read"
        ) from None


def _encrypted(key: str) -> NoReturn:
    raise WrongInput(f"tls_key {key} is encrypted; give a key without a passphrase, readable by its owner only")


def _refused(error: ssl.SSLError, peer: str) -> Exception:
    """Returns the error for a client that was not let in; what may pass stays as it is."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return error
    if alert := _alert(error):
        return WrongInput(
            f"{peer} refuses the certificate of this end ({alert}); give one that is valid and of the job's CA"
        )
    return WrongInput(
        f"{peer} speaks no TLS 1.3 ({_reason(error)}); leave tls_cert, tls_key and tls_ca out here, or start the job "
        "with them"
    )


def _alert(error: ssl.SSLError) -> str:
    """Returns what the other end has told about its refusal, or nothing."""
    _, found, words = (error.reason or "").partition("_ALERT_")
    return words.lower().replace("_", " ") if found else ""


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or error.strerror or str(error)).lower().replace("_", " ")
