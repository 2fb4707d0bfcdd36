"""Reading ahead changes how often the system is asked, never what is read."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.wire.inbox import SIZE, Inbox


class Source:
    """Gives its bytes in pieces of given sizes, then the end."""

    def __init__(self, data, pieces):
        self.data, self.pieces, self.reads = bytes(data), list(pieces), 0

    def receive_into(self, view):
        self.reads += 1
        size = min(len(view), len(self.data), self.pieces.pop(0) if self.pieces else len(self.data))
        view[:size], self.data = self.data[:size], self.data[size:]
        return size


def read(inbox, source, size):
    memory = bytearray(size)
    rest = memoryview(memory)
    while rest and not inbox.ended:
        rest = inbox.fill(rest, source.receive_into)
    return bytes(memory[: size - len(rest)])


@given(
    st.lists(st.integers(1, 3 * SIZE), min_size=1, max_size=6),
    st.lists(st.integers(1, 2 * SIZE), max_size=12),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_bytes_come_in_order_however_they_are_cut(wanted, pieces):
    data = bytes(i % 251 for i in range(sum(wanted)))
    inbox, source = Inbox(), Source(data, pieces)
    assert b"".join(read(inbox, source, size) for size in wanted) == data
    assert not inbox.full
    assert read(inbox, source, 1) == b""
    assert inbox.ended


def test_a_small_frame_costs_one_read():
    inbox, source = Inbox(), Source(b"h" * 16 + b"m" * 50, [])
    assert read(inbox, source, 16) == b"h" * 16
    assert inbox.full
    assert read(inbox, source, 50) == b"m" * 50
    assert source.reads == 1


def test_a_large_payload_is_not_copied():
    inbox, source = Inbox(), Source(bytes(4 * SIZE), [])
    given_to = []

    def receive_into(view):
        given_to.append(view.obj)
        return source.receive_into(view)

    memory = bytearray(4 * SIZE)
    inbox.fill(memoryview(memory), receive_into)
    assert given_to[0] is memory
