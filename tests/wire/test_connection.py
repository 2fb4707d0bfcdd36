"""Client and server against each other: sizes, partial sends, pauses, peers that vanish, that are slow, that flood."""

import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_peers import TOKEN, Echo, Stepped, address, channel_over, ended, frame, frame_of, served, tls_for

from tfleet.spec.errors import ExitCode, WrongInput
from tfleet.wire import client
from tfleet.wire.client import Channel, ConnectionLost
from tfleet.wire.frames import HEADER, Kind, ProtocolError, pack_header
from tfleet.wire.inbox import SIZE
from tfleet.wire.server import BACKLOG_LIMIT, Server

KINDS = ["pair", "unix", "tcp", "tls"]


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_of_any_size_come_back(kind):
    with served(kind) as (where, _, _):
        channel = channel_over(where, tls_for(kind))
        for size in (0, 1, 4096, 20_000_003):
            sent = np.arange(size, dtype=np.uint8)
            values, payload = channel.call("echo", sent.data, number=size)
            assert values == {"call": "echo", "number": size}
            assert bytes(payload) == sent.tobytes()
        channel.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_of_several_parts_lands_where_it_is_wanted(kind):
    with served(kind) as (where, _, _):
        channel = channel_over(where, tls_for(kind))
        a, b = np.arange(1000, dtype=np.float32), np.arange(300_000, dtype=np.float32)
        into = np.zeros(301_000, np.float32)
        channel.send(Kind.PUSH, b"meta", a.data, b"", b.data)
        received = channel.receive(into.data.cast("B"))
        assert (received.kind, bytes(received.meta)) == (Kind.PUSH, b"meta")
        assert into.tobytes() == a.tobytes() + b.tobytes()
        channel.send(Kind.PUSH, b"", a.data)
        received = channel.receive(into.data.cast("B"))  # of another size: memory of its own
        assert bytes(received.payload) == a.tobytes()
        channel.close()


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
def test_many_clients_at_once(kind):
    with served(kind) as (where, handler, _):
        results = []

        def work(number):
            channel = channel_over(where, tls_for(kind))
            for turn in range(20):
                values, payload = channel.call("echo", bytes([number]) * 5000, turn=turn)
                results.append((values["turn"], set(payload)) == (turn, {number}))
            channel.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert results == [True] * 160
        assert len(handler.frames) == 160


def test_an_error_is_raised_with_its_exit_code():
    with served() as (where, _, _):
        channel = channel_over(where)
        with pytest.raises(WrongInput, match="it failed; try again") as caught:
            channel.call("fail")
        assert caught.value.exit_code is ExitCode.WRONG_INPUT
        assert channel.call("echo")[0] == {"call": "echo"}  # and the connection lives
        channel.close()


def test_an_answer_of_another_kind_is_no_result():
    here, there = socket.socketpair()
    with here, there:
        channel = Channel(here, "ps 0")
        there.sendall(frame(Kind.PULL, b"{}"))
        with pytest.raises(ProtocolError, match="ps 0 answered with PULL instead of a result"):
            channel.call("echo")


@pytest.mark.parametrize("data", [b"", b"tf", pack_header(Kind.RESULT, 100, 0), pack_header(Kind.RESULT, 0, 0)[:15]])
def test_a_peer_that_goes_in_the_middle_of_a_frame_is_lost(data):
    here, there = socket.socketpair()
    with here:
        there.sendall(data)
        there.close()
        with pytest.raises(ConnectionLost, match="ps 0 closed the connection"):
            Channel(here, "ps 0").receive()
        with pytest.raises(ConnectionLost, match="the connection to ps 0 is lost: Broken pipe"):
            Channel(here, "ps 0").send(Kind.PULL)


def test_a_silent_peer_is_lost_after_the_timeout():
    here, there = socket.socketpair()
    with here, there:
        channel = Channel(here, "ps 0")
        channel.set_timeout(0.001)
        with pytest.raises(ConnectionLost, match="did not answer in time"):
            channel.receive()


def test_another_thread_can_wake_one_that_waits():
    here, there = socket.socketpair()
    with here, there:
        channel, raised = Channel(here, "ps 0"), []

        def wait():
            try:
                channel.receive()
            except ConnectionLost as error:
                raised.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        channel.abort()
        thread.join(20)
        assert raised == ["ps 0 closed the connection"]


def test_a_client_tries_again_until_somebody_listens():
    with Stepped(Echo()) as elsewhere:
        where, servers = address(), []

        def sleep(_seconds):
            if not servers:
                servers.append(Server(elsewhere.loop, where.listen(), TOKEN, elsewhere.handler))
                thread.start()

        thread = threading.Thread(target=elsewhere.loop.run)
        channel = client.connect(where, TOKEN, patience=10, sleep=sleep)
        assert channel.call("echo")[0] == {"call": "echo"}
        channel.close()
        elsewhere.loop.call_from_thread(elsewhere.loop.stop)
        thread.join(20)
        servers[0].close()


# The server's end alone, stepped.


@given(st.lists(st.integers(1, 40), max_size=60))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_frames_arrive_whole_in_whatever_pieces(cuts):
    data = frame(Kind.PUSH, b"abc", b"0123456789" * 5) + frame(Kind.PULL) + frame(Kind.PUSH, b"", b"x")
    with Stepped() as peers:
        _, sock = peers.adopt()
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            sock.sendall(piece)
            peers.step()
        assert peers.handler.frames == [(Kind.PUSH, b"abc", 50), (Kind.PULL, b"", 0), (Kind.PUSH, b"", 1)]
        assert [frame_of(sock)[0] for _ in range(3)] == [Kind.PUSH, Kind.PULL, Kind.PUSH]


def test_a_frame_waits_unread_until_the_handler_has_room():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        peers.handler.full = True
        sock.sendall(frame(Kind.PUSH, b"one", b"payload") + frame(Kind.PULL))
        peers.step()
        connection.retry()
        peers.step()
        assert peers.handler.frames == []
        peers.handler.full = False
        peers.step()
        assert peers.handler.frames == []  # until it is asked
        connection.retry()
        peers.step()
        assert peers.handler.frames == [(Kind.PUSH, b"one", 7), (Kind.PULL, b"", 0)]
        connection.retry()  # nothing waits: nothing happens


def test_a_peer_may_vanish_while_its_frame_waits():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        peers.handler.full = True
        sock.sendall(frame(Kind.PUSH, b"", b"payl"))
        peers.step()
        sock.close()
        peers.handler.full = False
        connection.retry()
        peers.step()
        connection.retry()
        assert [size for _, size in peers.handler.closings] == [None]
        assert peers.handler.frames[0][0] is Kind.PUSH


def test_a_buffer_that_was_not_filled_comes_back():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        sock.sendall(pack_header(Kind.PUSH, 0, 1000) + bytes(10))
        peers.step()
        assert peers.handler.closings == []
        sock.close()
        peers.step()
        assert peers.handler.closings == [(connection, 1000)]
        connection.close()
        assert len(peers.handler.closings) == 1


def test_a_frame_that_is_not_allowed_closes_its_connection_with_a_word():
    with Stepped() as peers:
        peers.handler.limit = 10
        _, bad = peers.adopt()
        _, good = peers.adopt()
        bad.sendall(frame(Kind.PUSH, b"", bytes(11)))
        good.sendall(frame(Kind.PUSH, b"", bytes(10)))
        peers.step()
        kind, meta, _ = frame_of(bad)
        assert (kind, b"11 bytes are too many" in meta) == (Kind.ERROR, True)
        assert ended(bad)
        assert frame_of(good)[0] is Kind.PUSH


def test_what_the_system_does_not_take_at_once_follows_when_it_is_read():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        payload = np.arange(30_000_000, dtype=np.uint8)
        connection.send(Kind.TAKE, b"m", payload.data)
        connection.send(Kind.TAKE, b"n")
        received = bytearray()
        while len(received) < 30_000_000 + 34:
            peers.step(1)
            try:
                received += sock.recv(1 << 22)
            except BlockingIOError:
                continue
        assert received[17 : 17 + 30_000_000] == payload.tobytes()
        assert received[-1:] == b"n"
        assert not connection.closed


def test_a_peer_that_does_not_read_is_dropped_but_not_in_the_middle_of_a_callback():
    with Stepped() as peers:
        connection, _ = peers.adopt()
        big = np.zeros(30_000_000, np.uint8)
        sent = 0
        while not connection._queue:
            connection.send(Kind.TAKE, b"", big.data)
        while len(connection._queue) <= BACKLOG_LIMIT:
            connection.send(Kind.TAKE, b"")
            sent += 1
            assert sent <= BACKLOG_LIMIT
            assert not connection.closed
        assert peers.handler.closings == []
        peers.step()
        assert connection.closed
        assert [c for c, _ in peers.handler.closings] == [connection]
        connection.send(Kind.TAKE, b"")  # says nothing


def test_a_peer_that_is_gone_is_noticed_by_sending():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        sock.close()
        connection.send(Kind.TAKE, b"")
        assert not connection.closed
        peers.step()
        assert connection.closed
        assert len(peers.handler.closings) == 1


def test_a_peer_that_never_stops_sending_does_not_keep_others_waiting():
    with Stepped() as peers:
        _, flood = peers.adopt()
        _, quiet = peers.adopt()
        flood.sendall(frame(Kind.PULL, b"f") * 500)
        quiet.sendall(frame(Kind.PULL, b"q"))
        due = []
        peers.loop.call_later(0, lambda: due.append(len(peers.handler.frames)))
        peers.loop.turn(0)
        metas = [meta for _, meta, _ in peers.handler.frames]
        assert metas.count(b"q") == 1
        assert 1 <= metas.count(b"f") <= SIZE // (HEADER.size + 1)  # what one read ahead holds
        assert due == [len(metas)]
        for _ in range(500):
            assert not ended(flood)  # reads what came back
            peers.step(1)
        assert len(peers.handler.frames) == 501


def test_an_error_of_the_handler_is_not_taken_for_one_of_the_peer():
    """A full disk while a push is logged must not look as if the worker were lost."""
    with Stepped() as peers:
        connection, sock = peers.adopt()

        def full(_connection):
            raise OSError(28, "No space left on device")

        peers.handler.on_frame = full
        sock.sendall(frame(Kind.PULL))
        with pytest.raises(OSError, match="No space left"):
            peers.step()
        assert not connection.closed


def test_a_server_that_is_closed_takes_no_more_connections():
    with Stepped() as peers:
        connection, sock = peers.adopt()
        peers.server.close()
        with pytest.raises(OSError, match="refused"):
            peers.address.connect(1)
        sock.sendall(frame(Kind.PULL))
        peers.step()
        assert frame_of(sock)[0] is Kind.PULL
        connection.close()
        peers.server = Server(peers.loop, address().listen(), TOKEN, peers.handler)
