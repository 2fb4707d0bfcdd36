"""Nobody gets in without the token: not by guessing, replaying, reflecting, keeping silent, or coming in numbers."""

import contextlib
import socket
import threading

import pytest
from wire_peers import TOKEN, Stepped, ended, frame, frame_of, read, served

from tfleet.spec.errors import WrongInput
from tfleet.wire import auth, client
from tfleet.wire.client import Channel, ConnectionLost
from tfleet.wire.frames import HEADER, UNPROVEN_META, Kind, ProtocolError, pack_header, unpack_header, unpack_json
from tfleet.wire.server import SILENT_LIMIT, SILENT_SECONDS


def test_a_proof_holds_for_its_side_token_and_nonces_only():
    first, second = auth.nonce(), auth.nonce()
    proof = auth.prove(TOKEN, b"client", first, second)
    assert auth.proven(TOKEN, b"client", first, second, proof)
    assert not auth.proven(b"another", b"client", first, second, proof)
    assert not auth.proven(TOKEN, b"server", first, second, proof)
    assert not auth.proven(TOKEN, b"client", second, first, proof)
    assert not auth.proven(TOKEN, b"client", first, auth.nonce(), proof)
    assert not auth.proven(TOKEN, b"client", first, second, b"")


def test_nonces_are_fresh():
    assert len({auth.nonce() for _ in range(100)}) == 100
    assert len(auth.nonce()) == auth.NONCE


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read: No such file"), (b" \n", "is empty")])
def test_a_token_file_that_is_none_is_told(tmp_path, content, words):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongInput, match=words):
        auth.read_token(path)


def test_a_token_is_read_without_its_end_of_line(tmp_path):
    (tmp_path / "token").write_bytes(b"abc\n")
    assert auth.read_token(tmp_path / "token") == b"abc"


def test_the_right_token_is_welcome_and_the_wrong_one_is_told():
    with Stepped() as peers:
        good, bad = peers.dial(), peers.dial()
        peers.step()
        assert peers.server.unproven == 2
        kind, _, _ = peers.prove(good)
        assert kind is Kind.WELCOME
        kind, meta, _ = peers.prove(bad, b"another")
        assert kind is Kind.ERROR
        assert unpack_json(meta) == {"message": "wrong token: give the token file of this job", "exit_code": 2}
        assert ended(bad)
        assert peers.server.unproven == 0
        assert peers.handler.closings == []  # the handler never heard of it


def test_an_overheard_answer_does_not_open_a_second_connection():
    with Stepped() as peers:
        first, second = peers.dial(), peers.dial()
        peers.step()
        challenge, nonce = frame_of(first)[1], auth.nonce()
        answer = frame(Kind.ANSWER, nonce + auth.prove(TOKEN, b"client", nonce, challenge))
        first.sendall(answer)
        second.sendall(answer)
        peers.step()
        assert frame_of(first)[0] is Kind.WELCOME
        assert frame_of(second)[0] is Kind.CHALLENGE
        assert frame_of(second)[0] is Kind.ERROR
        assert ended(second)


def test_a_server_is_not_fooled_by_its_own_challenge():
    with Stepped() as peers:
        sock = peers.dial()
        peers.step()
        challenge = frame_of(sock)[1]
        for proof in (challenge, auth.prove(TOKEN, b"server", challenge, challenge)):
            sock.sendall(frame(Kind.ANSWER, challenge + proof))
        peers.step()
        assert frame_of(sock)[0] is Kind.ERROR
        assert ended(sock)


def impostor(sock, answer):
    """Acts as a server that does not know the token; `answer(nonce, meta)` makes its frames."""

    def act():
        nonce = auth.nonce()
        with contextlib.suppress(OSError):
            sock.sendall(frame(Kind.CHALLENGE, nonce))
            assert unpack_header(read(sock, HEADER.size)) == (Kind.HELLO, 0, 0)
            header = unpack_header(read(sock, HEADER.size))
            sock.sendall(answer(nonce, read(sock, header.meta)))

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda nonce, meta: frame(Kind.WELCOME, meta[auth.NONCE :]), WrongInput),  # the client's own proof
        (lambda nonce, meta: frame(Kind.WELCOME, auth.prove(b"guess", b"server", meta[:32], nonce)), WrongInput),
        (lambda nonce, meta: frame(Kind.WELCOME), WrongInput),
        (lambda nonce, meta: frame(Kind.RESULT, b"{}"), WrongInput),
        (lambda nonce, meta: pack_header(Kind.WELCOME, 32, 1 << 40), ProtocolError),
        (lambda nonce, meta: pack_header(Kind.WELCOME, 1 << 24, 0), ProtocolError),
    ],
)
def test_a_client_does_not_go_on_with_a_server_that_cannot_prove_the_token(answer, error):
    here, there = socket.socketpair()
    with here, there:
        thread = impostor(there, answer)
        with pytest.raises(error):
            client.authenticate(Channel(here, "somebody"), TOKEN)
        thread.join(20)


def test_a_client_tells_what_does_not_speak_the_protocol():
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ProtocolError, match="does not speak tfleet's protocol"):
            client.authenticate(Channel(here, "somebody"), TOKEN)
        there.sendall(b"")


def test_a_client_tells_a_wrong_token():
    with served() as (where, _, _), pytest.raises(WrongInput, match="wrong token: give the token file of this job"):
        client.connect(where, b"another", patience=5)


@pytest.mark.parametrize(
    "data",
    [
        frame(Kind.CALL, b'{"call":"join"}'),
        pack_header(Kind.ANSWER, 64, 1),
        pack_header(Kind.ANSWER, UNPROVEN_META + 1, 0),
        pack_header(Kind.PUSH, 56, 1 << 40),
        b"GET / HTTP/1.1\r\nHost: ps\r\n\r\n",
        frame(Kind.ANSWER, b"short"),
    ],
)
def test_nothing_is_read_before_the_token_is_proven(data):
    with Stepped() as peers:
        sock = peers.dial()
        peers.step()
        sock.sendall(data)
        peers.step()
        assert ended(sock)
        assert peers.handler.frames == []
        assert peers.server.unproven == 0


def test_a_second_answer_is_no_frame_of_a_proven_peer():
    with Stepped() as peers:
        sock = peers.dial()
        peers.step()
        assert peers.prove(sock)[0] is Kind.WELCOME
        sock.sendall(frame(Kind.ANSWER, bytes(64)))
        peers.step()
        assert peers.handler.frames == [(Kind.ANSWER, bytes(64), 0)]  # the handler's to refuse


def test_an_unproven_connection_is_closed_after_the_limit_however_busy_it_is():
    with Stepped() as peers:
        silent, slow, good = peers.dial(), peers.dial(), peers.dial()
        peers.step()
        assert peers.prove(good)[0] is Kind.WELCOME
        answer = frame(Kind.ANSWER, bytes(64))
        for byte in answer[:50]:
            slow.sendall(bytes([byte]))
            peers.clock.time += SILENT_SECONDS / 51
            peers.step(1)
        assert not ended(slow)
        assert peers.server.unproven == 2
        peers.clock.time += SILENT_SECONDS / 50
        peers.step()
        assert ended(slow)
        assert ended(silent)
        assert not ended(good)
        assert peers.server.unproven == 0


def test_connections_that_say_nothing_do_not_keep_a_good_one_out():
    with Stepped() as peers:
        crowd = []
        for _ in range(300):
            crowd.append(peers.dial())
            peers.step(1)
        assert peers.server.unproven == SILENT_LIMIT == 256
        good = peers.dial()
        peers.step()
        assert peers.prove(good)[0] is Kind.WELCOME
        gone = [ended(sock) for sock in crowd]
        assert gone == [True] * 45 + [False] * 255  # the oldest went
        peers.clock.time += SILENT_SECONDS
        peers.step()
        assert all(ended(sock) for sock in crowd)
        good.sendall(frame(Kind.PULL, b"meta"))
        peers.step()
        assert frame_of(good) == (Kind.PULL, b"meta", b"")


def test_a_server_that_closes_at_once_is_tried_again_until_patience_ends():
    listener, tries = socket.create_server(("127.0.0.1", 0)), []
    clock = iter([0.0, 1.0, 2.0, 3.0]).__next__

    def hang_up(_seconds):
        tries.append(1)

    from tfleet.wire.address import Address

    where = Address("127.0.0.1", listener.getsockname()[1])
    listener.close()
    with pytest.raises(ConnectionLost, match=f"nobody answers at {where}: .*refused"):
        client.connect(where, TOKEN, patience=2.5, clock=clock, sleep=hang_up)
    assert len(tries) == 2
