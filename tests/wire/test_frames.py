"""Frames come back as they were packed; anything else is refused by a `ProtocolError` and nothing more."""

import contextlib
import json
import math
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.spec.errors import JobFailed
from tfleet.wire.client import Channel
from tfleet.wire.frames import (
    HEADER,
    META_LIMIT,
    PUSH,
    UNPROVEN_META,
    VERSION,
    Have,
    Header,
    Kind,
    Lease,
    Order,
    ProtocolError,
    Push,
    Take,
    pack_have,
    pack_header,
    pack_json,
    pack_push,
    pack_reach,
    pack_take,
    unpack_have,
    unpack_header,
    unpack_json,
    unpack_push,
    unpack_reach,
    unpack_take,
)

u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
pushes = st.builds(Push, u32, u32, u64, st.floats(width=32, allow_nan=False), u32, u64, u32, u64, u32, u16, u16, u8)
leases = st.builds(Lease, u32, u64, u32, u32, u64)
takes = st.builds(Take, u32, u64, st.sampled_from(Order), st.lists(leases, max_size=4).map(tuple))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
quick = settings(max_examples=50, deadline=None, derandomize=True)


@given(st.sampled_from(Kind), st.integers(0, META_LIMIT), u64)
@quick
def test_a_header_comes_back(kind, meta, payload):
    packed = pack_header(kind, meta, payload)
    assert len(packed) == HEADER.size == 16
    assert unpack_header(packed) == Header(kind, meta, payload)


@given(pushes)
@quick
def test_a_push_comes_back(push):
    assert unpack_push(bytearray(pack_push(push))) == push


@given(takes)
@quick
def test_a_take_comes_back(take):
    assert unpack_take(bytearray(pack_take(take))) == take


@given(st.builds(Have, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)))
def test_a_have_comes_back(have):
    assert unpack_have(bytearray(pack_have(have))) == have


@given(st.integers(0, 2**64 - 1))
def test_a_reach_comes_back(step):
    assert unpack_reach(bytearray(pack_reach(step))) == step


@given(st.dictionaries(st.text(), values, max_size=5))
@quick
def test_a_json_object_comes_back(given_values):
    assert unpack_json(pack_json(given_values)) == given_values


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_other_bytes_are_refused_in_words(data):
    for unpack in (unpack_push, unpack_take, unpack_json, unpack_have, unpack_reach):
        with contextlib.suppress(ProtocolError):
            unpack(data)
    if len(data) >= HEADER.size:
        with contextlib.suppress(ProtocolError):
            assert unpack_header(data[: HEADER.size]).meta <= META_LIMIT


@given(st.sampled_from(Kind), st.integers(0, 1000), u64, st.integers(0, 127))
@quick
def test_a_header_with_one_bit_changed_is_refused_or_means_something_else(kind, meta, payload, bit):
    packed = bytearray(pack_header(kind, meta, payload))
    packed[bit // 8] ^= 1 << bit % 8
    try:
        assert unpack_header(packed) != (kind, meta, payload)
    except ProtocolError:
        pass
    else:
        assert bit >= 24  # magic and version are checked whole


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HEADER.pack(b"GE", ord("T"), 1, 0, 0), "does not speak tfleet's protocol"),
        (b"\x16\x03\x01\x02\x00\x01" + bytes(10), "the peer speaks TLS and this end does not"),
        (HEADER.pack(b"tf", VERSION + 1, 1, 0, 0), f"version {VERSION + 1}, this is {VERSION}: use one tfleet version"),
        (HEADER.pack(b"tf", VERSION, 99, 0, 0), "unknown kind of frame: 99"),
        (HEADER.pack(b"tf", VERSION, 4, META_LIMIT + 1, 0), f"{META_LIMIT + 1} bytes of meta"),
    ],
)
def test_a_wrong_header_is_refused_with_its_reason(data, words):
    with pytest.raises(ProtocolError, match=words) as caught:
        unpack_header(data)
    assert isinstance(caught.value, JobFailed)


@pytest.mark.parametrize(
    "meta", [b"", b"{", b"[]", b"1", b"\xff\xfe", b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}']
)
def test_what_is_no_json_object_is_refused(meta):
    with pytest.raises(ProtocolError, match=r"not JSON|not a JSON object"):
        unpack_json(meta)


def test_json_too_deep_to_read_is_refused():
    with pytest.raises(ProtocolError, match="not JSON"):
        unpack_json(b'{"a":' + b"[" * 100_000)


def test_what_json_has_no_word_for_is_not_packed():
    with pytest.raises(ValueError, match="JSON"):
        pack_json({"loss": math.nan})


def test_floats_keep_every_bit():
    for value in (0.1, 1e-45, 5e-324, 1.7976931348623157e308):
        assert unpack_json(pack_json({"v": value}))["v"] == value
    assert json.loads(pack_json({"v": 0.1})) == {"v": 0.1}


@pytest.mark.parametrize("length", [0, PUSH.size - 1, PUSH.size + 1])
def test_a_push_of_another_length_is_refused(length):
    with pytest.raises(ProtocolError, match=f"{length} bytes of meta"):
        unpack_push(bytes(length))


@pytest.mark.parametrize(
    ("meta", "payload"), [(META_LIMIT, 0), (UNPROVEN_META + 1, 0), (8, 1), (8, 1 << 34), (0, 2**64 - 1)]
)
def test_a_client_takes_no_memory_for_a_peer_that_has_proven_nothing(meta, payload):
    here, there = socket.socketpair()
    with here, there:
        there.sendall(pack_header(Kind.CHALLENGE, meta, payload) + bytes(8))
        with pytest.raises(ProtocolError, match="bytes of"):
            Channel(here, "somebody").receive()


def test_a_client_takes_no_more_than_its_limit_of_a_proven_peer():
    here, there = socket.socketpair()
    with here, there:
        channel = Channel(here, "ps 0")
        channel.proven = True
        there.sendall(pack_header(Kind.RESULT, 0, 2**63))
        with pytest.raises(ProtocolError, match=f"{2**63} bytes of payload"):
            channel.receive()
