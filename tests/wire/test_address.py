"""Addresses: how they are written, and one sentence for each that cannot be."""

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_peers import address, tcp_address

from tfleet.spec.errors import WrongInput
from tfleet.wire.address import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:2222", Address("localhost", 2222)),
        ("job-ps-0.job-ps:1", Address("job-ps-0.job-ps", 1)),
        ("[::1]:65535", Address("::1", 65535)),
        ("unix:@run-ps-0", Address(path="@run-ps-0")),
        ("unix:/tmp/ps", Address(path="/tmp/ps")),
    ],
)
def test_an_address_is_read_and_written(text, expected):
    assert Address.parse(text) == expected
    assert Address.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:x", "host:²", "unix:", "unix:@", "unix:x"],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(WrongInput, match="is not host:port or unix:@name; correct PS_HOSTS"):
        Address.parse(text)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_is_an_address_or_refused(text):
    with contextlib.suppress(WrongInput):
        assert Address.parse(str(Address.parse(text))) == Address.parse(text)


@pytest.mark.parametrize("make", [address, tcp_address])
def test_one_listens_and_another_connects(make):
    where = make()
    with where.listen() as server, where.connect(5) as client:
        server.settimeout(5)
        with server.accept()[0] as accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


@pytest.mark.parametrize("make", [address, tcp_address])
def test_an_address_that_is_taken_is_told(make):
    where = make()
    with where.listen(), pytest.raises(WrongInput) as caught:
        where.listen()
    assert str(caught.value) == (f"cannot listen on {where}: Address already in use; choose another address or port")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Address(path="/tmp/" + "x" * 200), "AF_UNIX path too long"),
        (Address(path="/nowhere/at/all"), "No such file or directory"),
        (Address("203.0.113.1", 4), "Cannot assign requested address|not"),
        (Address("no such host", 4), "choose another address or port"),
    ],
)
def test_an_address_that_is_not_ours_is_told(where, words):
    with pytest.raises(WrongInput, match=words) as caught:
        where.listen()
    assert "None" not in str(caught.value)


def test_a_ps_in_a_pod_listens_on_every_interface():
    where = tcp_address()
    with Address("job-ps-0.job-ps", where.port).listen(everywhere=True), where.connect(5):
        pass


def test_connections_do_not_wait_to_send_little():
    where = tcp_address()
    with where.listen(), where.connect(5) as client:
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("make", [address, tcp_address])
def test_nobody_there_is_an_error_of_the_system(make):
    with pytest.raises(OSError, match="refused"):
        make().connect(5)
