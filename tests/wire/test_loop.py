"""The event loop: readiness, timers by a clock of the test, calls from other threads."""

import socket
import threading
from selectors import EVENT_READ, EVENT_WRITE

import pytest
from wire_peers import Clock

from tfleet.wire.loop import Loop


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def loop(clock):
    loop = Loop(clock)
    yield loop
    loop.close()


def test_timers_run_when_they_are_due_in_order(loop, clock):
    ran = []
    loop.call_later(2, lambda: ran.append("b"))
    loop.call_later(1, lambda: ran.append("a"))
    loop.call_later(2, lambda: ran.append("c"))
    loop.turn(0)
    assert ran == []
    clock.time += 1
    loop.turn(0)
    assert ran == ["a"]
    clock.time += 5
    loop.turn(0)
    loop.turn(0)
    assert ran == ["a", "b", "c"]


def test_a_repeated_timer_goes_on(loop, clock):
    ran = []
    loop.call_every(0.5, lambda: ran.append(clock.time))
    for _ in range(4):
        clock.time += 0.5
        loop.turn(0)
    assert ran == [100.5, 101.0, 101.5, 102.0]


def test_the_loop_waits_no_longer_than_for_its_next_timer(loop, clock):
    waits = []
    loop._selector.select = lambda timeout: (waits.append(timeout), setattr(clock, "time", clock.time + 3))[:0]
    loop.call_later(2, loop.stop)
    loop.run()
    assert waits == [2]


def test_a_socket_is_watched_for_what_was_asked_and_no_longer(loop):
    here, there = socket.socketpair()
    with here, there:
        seen = []
        loop.watch(here, EVENT_READ, seen.append)
        loop.turn(0)
        assert seen == []
        there.sendall(b"x")
        loop.turn(0)
        assert seen == [EVENT_READ]
        loop.watch(here, EVENT_READ | EVENT_WRITE, seen.append)
        loop.turn(0)
        assert seen[1:] == [EVENT_READ | EVENT_WRITE]
        loop.watch(here, 0, seen.append)
        loop.turn(0)
        assert len(seen) == 2
        loop.watch(here, 0, seen.append)  # once more does no harm


def test_a_callback_may_close_a_socket_that_is_ready_too(loop):
    a, b = socket.socketpair(), socket.socketpair()
    ran = []

    def close(_events):
        ran.append(1)
        for pair in (a, b):
            loop.watch(pair[0], 0, close)

    for pair in (a, b):
        loop.watch(pair[0], EVENT_READ, close)
        pair[1].sendall(b"x")
    loop.turn(0)
    loop.turn(0)
    assert 1 <= len(ran) <= 2
    for sock in (*a, *b):
        sock.close()


def test_calls_of_other_threads_run_in_the_loops_thread():
    loop, ran = Loop(), []
    threads = [
        threading.Thread(target=lambda: [loop.call_from_thread(lambda: ran.append(threading.get_ident()))] * 1)
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.call_from_thread(loop.stop)
    loop.run()
    assert ran == [threading.get_ident()] * 5
    loop.close()


def test_a_call_of_another_thread_wakes_a_loop_that_waits():
    loop = Loop()
    runner = threading.Thread(target=loop.run)
    runner.start()
    loop.call_from_thread(loop.stop)
    runner.join(20)
    assert not runner.is_alive()
    loop.close()


def test_more_calls_than_the_pipe_holds_are_all_run(loop):
    ran = []
    for number in range(70_000):
        loop.call_from_thread(lambda number=number: ran.append(number))
    loop.turn(0)
    assert ran == list(range(70_000))


def test_work_in_a_thread_tells_its_result_to_the_loop():
    loop, where = Loop(), []

    def work():
        where.append(threading.get_ident())
        loop.call_from_thread(loop.stop)

    loop.start_thread(work)
    loop.run()
    assert where != [threading.get_ident()]
    loop.close()
