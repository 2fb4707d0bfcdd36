"""How a member's work may end, and what ps 0 is told of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfleet.spec.errors import ExitCode, JobFailed, WrongInput
from tfleet.strategies.exchange import Rejoin
from tfleet.wire.client import ConnectionLost
from tfleet.wire.frames import ProtocolError
from tfleet.worker.session import Session, guarded


def session(told, error=None):
    def call(name, **values):
        told.append((name, values))
        if error:
            raise error

    return SimpleNamespace(first=SimpleNamespace(call=call))


def raising(error):
    def work():
        raise error

    return work


def test_work_that_ends_well_is_told_to_nobody():
    told = []
    assert guarded(session(told), lambda: 130) == ExitCode.INTERRUPTED
    assert told == []


def test_a_reason_is_told_with_its_exit_code():
    told = []
    with pytest.raises(WrongInput, match="a word"):
        guarded(session(told), raising(WrongInput("a word")))
    assert told == [("fail", {"message": "a word", "exit_code": 2})]


def test_a_defect_is_told_in_short():
    told = []
    with pytest.raises(ZeroDivisionError):
        guarded(session(told), raising(ZeroDivisionError("two\nlines")))
    assert told == [("leave", {"reason": "a worker ended: ZeroDivisionError: two lines"})]


def test_a_lost_connection_is_left_to_who_knows_whether_the_job_is_over():
    told = []
    with pytest.raises(ConnectionLost):
        guarded(session(told), raising(ConnectionLost("gone")))
    assert told == []


def test_a_reason_is_not_forgotten_when_the_connection_is_closed_meanwhile():
    told = []
    with pytest.raises(ProtocolError, match="a call 'describe' with wrong values"):
        guarded(session(told, ConnectionLost("closed")), raising(ProtocolError("a call 'describe' with wrong values")))
    assert [name for name, _ in told] == ["fail"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 GiB"),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
    ],
)
def test_want_of_memory_is_told_in_a_sentence_and_may_be_tried_again(error):
    told = []
    with pytest.raises(type(error)):
        guarded(session(told), raising(error))
    assert told == [
        (
            "leave",
            {
                "reason": f"a worker is out of memory: {error}; take a smaller batch_size, fewer replicas on this "
                "machine, or more memory"
            },
        )
    ]


@pytest.mark.parametrize(
    ("refused", "raised"),
    [(JobFailed("join again"), Rejoin), (ConnectionLost("gone"), ConnectionLost), (WrongInput("no"), WrongInput)],
)
def test_a_worker_that_was_fenced_before_it_attached_joins_again(refused, raised):
    made = Session.__new__(Session)
    made.member, made.generation = 1, 1
    made.others = [session([]).first, session([], refused).first]
    with pytest.raises(raised, match=str(refused)):
        made.attach()
