"""TLS below the frames: who is let in, what each wrong certificate is called, and nothing forgotten in its buffers."""

import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path

import certificates
import numpy as np
import pytest
from certificates import NAME, authority, encrypted_key, files, tls
from cryptography.x509.oid import ExtendedKeyUsageOID
from wire_peers import TOKEN, Echo, Stepped, channel_over, ended, frame, frame_of, served

from tfleet.spec.environment import TLS_VARIABLES
from tfleet.spec.errors import ExitCode, TfleetError, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.wire import client
from tfleet.wire.client import ConnectionLost
from tfleet.wire.frames import HEADER, MAGIC, VERSION, Kind, pack_header, unpack_json
from tfleet.wire.secure import tls_of, tls_of_environment
from tfleet.wire.server import SILENT_LIMIT, SILENT_SECONDS
from tfleet.wire.tls import Tls


def spec(**given):
    return JobSpec(task="mnist", tcp=True, **given)


def refusal(where, tls):
    """Connects; returns the sentence of the refusal, which is of exit code 2."""
    with pytest.raises(TfleetError) as caught:
        client.connect(where, TOKEN, patience=20, tls=tls)
    assert caught.value.exit_code is ExitCode.WRONG_INPUT
    return str(caught.value)


# What can be seen before anything is started.


def test_right_files_pass_and_no_files_are_no_tls():
    assert tls_of(spec()) is None
    assert tls_of(spec(**files()), "127.0.0.1:1234")
    assert tls_of(spec(**files(), tls_server_name=NAME), "10.1.2.3:1234")
    assert tls_of(spec(**files()))  # who only connects needs no name
    assert tls_of(spec(**files()), "unix:@ps-0")


@pytest.mark.parametrize("field", ["tls_cert", "tls_key", "tls_ca"])
def test_a_file_that_is_missing_or_unreadable_is_told(field, tmp_path):
    for path, why in ((tmp_path / "none.pem", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WrongInput, match=f"{field} {path} cannot be read: {why}"):
            tls_of(spec(**{**files(), field: str(path)}))


@pytest.mark.parametrize("field", ["tls_cert", "tls_key", "tls_ca"])
@pytest.mark.parametrize("content", [b"", b"no PEM\n", b"\xff\x00" * 100])
def test_a_file_that_is_no_pem_is_told(field, content, tmp_path):
    path = tmp_path / "wrong.pem"
    path.write_bytes(content)
    with pytest.raises(WrongInput, match=f"{path}.* (is not PEM|holds no certificate); give"):
        tls_of(spec(**{**files(), field: str(path)}))


WRONG = {
    "expired": (lambda: files(valid="expired"), "or that of its CA, has expired; renew it"),
    "not valid yet": (lambda: files(valid="later"), "is not valid yet; wait, set the clock, or make a new one"),
    "of another CA": (
        lambda: {**files(), "tls_ca": files(ca="another")["tls_ca"]},
        "is not signed by a CA in tls_ca .*ca.crt; give the certificate and the file of one CA",
    ),
    "of another key": (
        lambda: {**files(), "tls_key": files("else")["tls_key"]},
        "tls_key .* does not belong to the certificate in tls_cert",
    ),
    "encrypted": (
        lambda: {**files(), "tls_key": encrypted_key(files()["tls_key"])},
        "encrypted.key is encrypted; give a key without a passphrase",
    ),
    "of another host": (lambda: files("elsewhere.org"), "is not for 127.0.0.1; give one that has this name"),
    "of another address": (lambda: files("127.0.0.9"), "is not for 127.0.0.1; give one that has this name"),
    "without the job's name": (
        lambda: {**files(), "tls_server_name": "another.name"},
        "is not for another.name; give one that has this name",
    ),
    "a name that is none": (lambda: {**files(), "tls_server_name": ".no name"}, "'.no name' is no host name"),
}


@pytest.mark.parametrize("what", WRONG)
def test_certificates_that_cannot_work_are_told_before_anything_starts(what):
    make, words = WRONG[what]
    with pytest.raises(WrongInput, match=words) as caught:
        tls_of(spec(**make()), "127.0.0.1:1234")
    assert "\n" not in str(caught.value)


def test_a_certificate_for_servers_only_is_told(tmp_path, monkeypatch):
    from cryptography import x509

    servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    monkeypatch.setattr(x509, "ExtendedKeyUsage", lambda _usages: servers)
    with pytest.raises(WrongInput, match="is not for clients and servers both; make one with the usages"):
        tls_of(spec(**files("only.a.server")))


@pytest.mark.parametrize("given", [["tls_cert"], ["tls_key", "tls_ca"], ["tls_server_name"]])
def test_fields_that_need_each_other_come_together(given):
    with pytest.raises(WrongInput, match=r"tls_cert, tls_key and tls_ca(?:: give them too| go together: give tls_)"):
        JobSpec.parse({"task": "mnist", **dict.fromkeys(given, "x")})


def test_the_environment_names_files_that_are_elsewhere_on_another_machine():
    here, elsewhere = files(), {**files(), "tls_cert": "/elsewhere", "tls_key": "/elsewhere"}
    variables = {TLS_VARIABLES[name]: path for name, path in here.items()}
    assert tls_of(spec(**elsewhere), environ=variables)
    assert tls_of_environment({}) is None
    assert tls_of_environment(variables)
    with pytest.raises(WrongInput, match=r"go together: set TFLEET_TLS_KEY and TFLEET_TLS_CA too, or unset all of"):
        tls_of_environment({"TFLEET_TLS_CERT": "/x"})
    with pytest.raises(WrongInput, match="tls_cert /elsewhere cannot be read"):
        tls_of(spec(**elsewhere), environ={})


# Who is let in, and what both sides say.


def test_both_sides_must_have_a_certificate_of_the_job_and_the_token():
    told = []
    with served("tls", told=told) as (where, _, _):
        channel = channel_over(where, tls())
        assert channel.call("echo", b"abc")[1] == b"abc"
        assert channel._sock.version() == "TLSv1.3"
        channel.close()
        with pytest.raises(WrongInput, match="wrong token: give the token file"):
            client.connect(where, b"another", patience=5, tls=tls())
    assert told == ["refused a connection from 127.0.0.1: wrong token: give the token file of this job"]


def test_the_name_of_the_job_stands_for_every_address():
    with served("tls", tls=tls(NAME)) as (where, _, _):
        channel_over(where, tls(server_name=NAME)).close()
        assert f"the certificate of {where} is not for 127.0.0.1; give" in refusal(where, tls())
        assert "is not for another.name; give" in refusal(where, tls(server_name="another.name"))


@pytest.mark.parametrize(
    ("server", "mine", "logged"),
    [
        ({"valid": "expired"}, "has expired; renew it", "it refuses the certificate of this ps"),
        ({"valid": "later"}, "is not valid yet; wait", "it refuses the certificate of this ps"),
        ({"ca": "another"}, "is not signed by a CA in tls_ca", "it refuses the certificate of this ps"),
    ],
)
def test_a_server_without_a_valid_certificate_is_told_apart(server, mine, logged):
    told = []
    with served("tls", tls=tls(**server), told=told) as (where, _, _):
        assert mine in refusal(where, tls())
    assert len(told) == 1
    assert logged in told[0]


@pytest.mark.parametrize(
    ("given", "mine", "logged"),
    [
        ({"valid": "expired"}, r"refuses the certificate of this end \(certificate expired\)", "has expired; renew it"),
        ({"valid": "later"}, r"refuses the certificate of this end \(.*certificate\)", "is not valid yet; wait"),
        ({"ca": "another"}, r"refuses the certificate of this end \(unknown ca\)", "is not signed by a CA in tls_ca"),
    ],
)
def test_a_client_without_a_valid_certificate_is_refused(given, mine, logged):
    told, bad = [], files(**given)
    mixed = Tls(bad["tls_cert"], bad["tls_key"], files()["tls_ca"])
    with served("tls", told=told) as (where, handler, _):
        for _ in range(3):
            assert re.search(mine, refusal(where, mixed))
    assert len(told) == 1  # the same sentence once
    assert logged in told[0]
    assert handler.frames == []


def old_context(**how):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in how.items():
        setattr(context, name, value)
    return context


@pytest.mark.parametrize(
    ("context", "logged"),
    [
        (old_context(), "it has no certificate; give it tls_cert and tls_key"),
        (old_context(maximum_version=ssl.TLSVersion.TLSv1_2), "it speaks no TLS 1.3"),
    ],
)
def test_no_certificate_and_an_older_tls_are_refused(context, logged):
    told = []
    with served("tls", told=told) as (where, handler, _), contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(OSError))
        sock = stack.enter_context(context.wrap_socket(where.connect(5)))
        sock.sendall(frame(Kind.HELLO))
        while sock.recv(1000):
            pass
    assert len(told) == 1
    assert logged in told[0]
    assert handler.frames == []


def test_a_client_without_tls_is_told_that_the_job_has_it():
    told = []
    with served("tls", told=told) as (where, _, _):
        assert refusal(where, None) == "this ps speaks TLS only; give tls_cert, tls_key and tls_ca of the job"
    assert told == [
        "refused a connection from 127.0.0.1: it does not speak TLS; give it tls_cert, tls_key and tls_ca of the job"
    ]


def test_a_client_with_tls_is_told_that_the_job_has_none():
    told = []
    with served("tcp", told=told) as (where, _, _):
        assert f"{where} speaks no TLS 1.3 (wrong version number); leave tls_cert" in refusal(where, tls())
    assert len(told) == 1
    assert "127.0.0.1: the peer speaks TLS and this end does not" in told[0]


def test_unix_sockets_have_no_tls():
    with served("unix", tls=tls()) as (where, _, _):
        channel = channel_over(where, tls())
        assert channel.local
        assert channel.call("echo", b"x")[1] == b"x"
        channel.close()


def test_a_peer_that_goes_during_the_handshake_is_lost_not_wrong():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        from tfleet.wire.address import Address

        where = Address("127.0.0.1", listener.getsockname()[1])
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with pytest.raises(ConnectionLost, match=f"nobody answers at {where}"):
            client.connect(where, TOKEN, patience=0, tls=tls())
        thread.join(20)


# Other versions of the protocol.


def versioned(version, kind, meta=b""):
    return HEADER.pack(MAGIC, version, kind, len(meta), 0) + meta


@pytest.mark.parametrize(("version", "age"), [(VERSION - 1, "older"), (VERSION + 1, "newer")])
@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.ANSWER])
def test_a_client_of_another_version_is_told_and_logged(version, age, kind):
    with Stepped() as peers:
        sock = peers.dial()
        sock.sendall(versioned(version, kind, bytes(64) if kind is Kind.ANSWER else b""))
        peers.step()
        assert frame_of(sock)[0] is Kind.CHALLENGE
        kind, meta, _ = frame_of(sock)
        sentence = (
            f"who connects speaks protocol version {version}, {age} than version {VERSION} of the ps; "
            "use one tfleet version for the whole job"
        )
        assert (kind, unpack_json(meta)) == (Kind.ERROR, {"message": sentence, "exit_code": 2})
        assert ended(sock)
        assert peers.told == [f"refused a connection from this machine: {sentence}"]


@pytest.mark.parametrize(("version", "age"), [(VERSION - 1, "newer"), (VERSION + 1, "older")])
def test_a_client_tells_a_ps_of_another_version_its_own(version, age):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        from tfleet.wire.address import Address

        def act():
            sock, _ = listener.accept()
            with sock:
                sock.sendall(versioned(version, Kind.CHALLENGE, bytes(32)))
                heard.append(sock.recv(HEADER.size))

        thread = threading.Thread(target=act)
        thread.start()
        sentence = refusal(Address("127.0.0.1", listener.getsockname()[1]), None)
        thread.join(20)
    assert f"version {VERSION}, {age} than version {version} of the ps; use one tfleet version" in sentence
    assert heard == [pack_header(Kind.HELLO, 0, 0)]  # by which the other side sees the version too


def test_what_does_not_speak_the_protocol_at_all_is_wrong_input():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        from tfleet.wire.address import Address

        def act():
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                sock.recv(HEADER.size)

        thread = threading.Thread(target=act)
        thread.start()
        assert "does not speak tfleet's protocol" in refusal(Address("127.0.0.1", listener.getsockname()[1]), None)
        thread.join(20)


def test_refusals_do_not_fill_the_log():
    with Stepped() as peers:
        for version in range(3, 200):
            sock = peers.dial()
            sock.sendall(versioned(version, Kind.HELLO))
            peers.step()
        assert len(peers.told) == 32


# The server's end, stepped.


class Client:
    """A TLS client that does not block."""

    def __init__(self, peers, certificate=None):
        self.sock = (
            (certificate or tls())
            ._contexts()[0]
            .wrap_socket(peers.address.connect(5), server_hostname="127.0.0.1", do_handshake_on_connect=False)
        )
        self.sock.setblocking(False)
        self.peers = peers
        peers.sockets.append(self.sock)

    def shake(self):
        for _ in range(20):
            try:
                self.sock.do_handshake()
                return self
            except ssl.SSLWantReadError:
                self.peers.step()
        raise AssertionError("no handshake")

    def prove(self):
        self.peers.step()
        assert self.peers.prove(self.sock)[0] is Kind.WELCOME
        return self

    def recv(self, count):
        """Reads until there are so many bytes."""
        data = bytearray()
        while len(data) < count:
            try:
                data += self.sock.recv(count - len(data))
            except ssl.SSLWantReadError:
                self.peers.step(1)
        return bytes(data)


@pytest.fixture
def peers():
    with Stepped(tls=tls()) as made:
        yield made


def test_frames_of_one_record_are_not_forgotten(peers):
    who = Client(peers).shake().prove()
    # One record with far more than is read ahead: the selector sees nothing once the first bytes are decrypted.
    who.sock.sendall(frame(Kind.PULL, b"0123456789" * 4) * 200 + frame(Kind.PUSH, b"", b"x" * 3000))
    peers.step()
    assert len(peers.handler.frames) == 201


def test_frames_behind_one_that_waits_are_not_forgotten(peers):
    who = Client(peers).shake().prove()
    peers.handler.full = True
    who.sock.sendall(frame(Kind.PUSH, b"one", b"payload") + frame(Kind.PULL, b"0123456789" * 4) * 100)
    peers.step()
    assert peers.handler.frames == []
    peers.handler.full = False
    peers.handler.connections[0].retry()
    peers.step()
    assert len(peers.handler.frames) == 101


def test_what_came_with_the_end_of_the_handshake_is_not_forgotten(peers):
    who = Client(peers)
    for _ in range(20):
        with contextlib.suppress(ssl.SSLWantReadError):
            who.sock.do_handshake()
            break
        peers.step()
    who.sock.sendall(frame(Kind.HELLO) + pack_header(Kind.ANSWER, 64, 0) + bytes(64))  # before the challenge is read
    peers.step()
    kinds = [frame_of(who.sock)[0], frame_of(who.sock)[0]]
    assert kinds == [Kind.CHALLENGE, Kind.ERROR]


def test_a_connection_that_is_handed_over_keeps_what_was_decrypted():
    """A ps joins by a blocking channel, and serves by the loop afterwards."""
    with served("tls") as (where, handler, _), Stepped() as peers:
        record = b"".join(frame(Kind.PULL, bytes([i]) * 40) for i in range(100))

        def answer(connection):
            handler.on_frame = None
            connection._sock.sendall(record)

        handler.on_frame = answer
        channel = channel_over(where, tls())
        channel.send(Kind.CALL, b'{"call":"echo"}')
        channel.receive()
        assert channel._sock.pending() > 3000
        connection = peers.server.adopt(*channel.detach())
        while len(peers.handler.frames) < 50 and not connection.closed:
            peers.step(1)
        assert [meta[0] for _, meta, _ in peers.handler.frames][:50] == list(range(1, 51))
        connection.close()


def test_large_answers_to_a_slow_reader_arrive_whole(peers):
    who = Client(peers).shake().prove()
    who.sock.sendall(frame(Kind.CALL, b'{"call":"echo"}'))
    peers.step()
    who.recv(HEADER.size + 15)
    connection, big = peers.handler.connections[0], np.arange(30_000_000, dtype=np.uint8)
    connection.send(Kind.TAKE, b"m", big.data)
    connection.send(Kind.TAKE, b"n", big[:5].data)
    peers.step()
    assert connection._queue  # the system did not take all of it
    data = who.recv(17 + 30_000_000 + 17 + 5)
    assert data[17 : 17 + 30_000_000] == big.tobytes()
    assert data[-5:] == big[:5].tobytes()
    assert not connection.closed


def test_handshakes_have_the_time_of_the_token_and_no_more(peers):
    silent = peers.dial()
    half = Client(peers)
    with contextlib.suppress(ssl.SSLWantReadError):
        half.sock.do_handshake()
    whole = Client(peers).shake()
    peers.step()
    assert peers.server.unproven == 3
    peers.clock.time += SILENT_SECONDS
    peers.step()
    assert peers.server.unproven == 0
    assert ended(silent)
    assert peers.told == []
    with contextlib.suppress(OSError):
        assert whole.sock.recv(1000)  # the challenge
        assert not whole.sock.recv(1000)


def test_silent_connections_do_not_keep_a_good_one_out(peers):
    crowd = []
    for _ in range(SILENT_LIMIT + 10):
        crowd.append(peers.dial())
        peers.step(1)
    assert peers.server.unproven == SILENT_LIMIT
    Client(peers).shake().prove()
    assert [ended(sock) for sock in crowd].count(True) == 11


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05abcde", b"\x16", b"\x16" * 70_000, b""]
)
def test_rubbish_instead_of_a_handshake_harms_nobody(peers, data):
    sock = peers.dial()
    with contextlib.suppress(BlockingIOError):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    peers.step()
    assert ended(sock)
    assert peers.server.unproven == 0
    Client(peers).shake().prove()


def test_the_end_of_a_generation_drops_handshakes_too(peers):
    waiting = peers.dial()
    peers.step()
    peers.server.end()
    assert ended(waiting)
    assert peers.server.unproven == 0


def test_renewed_certificates_are_taken_over_and_broken_ones_are_not(tmp_path):
    first, then = files(), files("127.0.0.1", NAME, "renewed")
    paths = {field: tmp_path / Path(path).name for field, path in first.items()}

    def put(given):
        for field, path in paths.items():
            path.write_bytes(given(field))

    def serial():
        with Stepped(tls=mine) as peers:
            who = Client(peers).shake()
            return who.sock.getpeercert()["serialNumber"]

    put(lambda field: Path(first[field]).read_bytes())
    mine = Tls(*map(str, paths.values()))
    mine.check("127.0.0.1")
    before = serial()
    put(lambda field: b"half of a file")
    assert serial() == before
    put(lambda field: Path(then[field]).read_bytes())
    assert serial() != before


def test_another_thread_can_wake_one_that_waits():
    with served("tls") as (where, _, _):
        channel, raised = channel_over(where, tls()), []

        def wait():
            try:
                channel.receive()
            except ConnectionLost as error:
                raised.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        channel.abort()
        thread.join(20)
        assert raised == [f"{where} closed the connection"]


def test_bytes_that_were_changed_on_the_way_end_the_connection():
    """Between two machines somebody flips a bit: without TLS it would be a gradient."""
    with served("tls", handler=Echo()) as (where, handler, _), socket.create_server(("127.0.0.1", 0)) as proxy:
        from tfleet.wire.address import Address

        evil = threading.Event()

        def pump(source, sink, spoil):
            with contextlib.suppress(OSError):
                while data := bytearray(source.recv(1 << 16)):
                    if spoil and evil.is_set():
                        data[-1] ^= 1
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)

        def act():
            here, _ = proxy.accept()
            there = where.connect(5)
            with here, there:
                back = threading.Thread(target=pump, args=(there, here, False))
                back.start()
                pump(here, there, True)
                back.join(20)

        thread = threading.Thread(target=act)
        thread.start()
        channel = channel_over(Address("127.0.0.1", proxy.getsockname()[1]), tls())
        assert channel.call("echo", b"abc")[1] == b"abc"
        evil.set()
        with pytest.raises(ConnectionLost):
            channel.call("echo", b"abc")
        channel.close()
        thread.join(20)
        assert len(handler.frames) == 1


def test_the_helper_makes_what_it_says():
    assert certificates.files() is files()
    assert authority() is authority()
