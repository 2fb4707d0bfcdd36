"""The harness itself: it finds what is wrong, plays the same schedule again, and shrinks a failing one."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from chaos_events import Tail, ledger_faults, partial_updates, replay
from chaos_proxy import Proxy
from chaos_schedule import DOES, Action, Schedule, Shape, random_schedule
from chaos_shrink import keep, kept, shrink

Values = list[object]


def events(*some: tuple[object, ...]) -> list[Values]:
    return [[kind, 0.0, *values] for kind, *values in some]


def acks(*batches: tuple[int, int], member: int = 1) -> list[tuple[object, ...]]:
    return [("ack", member, number, *batch, 1, number) for number, batch in enumerate(batches, 1)]


def test_an_exact_ledger_has_no_faults() -> None:
    told = replay(events(("begin", 1, -1), *acks((0, 0), (0, 1), (1, 1), (1, 0))), "ack")
    assert ledger_faults(told.survived, 2, 2) == []


def test_a_batch_that_counts_twice_or_never_is_found() -> None:
    told = replay(events(("begin", 1, -1), *acks((0, 0), (0, 0), (1, 1), (1, 0), (2, 0))), "ack")
    twice, missing, foreign = ledger_faults(told.survived, 2, 2)
    assert "more than once, such as (0, 0)" in twice
    assert "missing, such as (0, 1)" in missing
    assert "not of this job, such as (2, 0)" in foreign


def test_a_rollback_takes_back_what_came_after_the_cut() -> None:
    log = events(
        ("begin", 1, -1), *acks((0, 0)), ("cut", 0), *acks((0, 1)), ("begin", 2, 0), *acks((0, 1)), ("cut", 1)
    )  # fmt: skip
    told = replay(log, "ack")
    assert ledger_faults(told.survived, 1, 2) == []
    assert (told.total, told.undone, told.generations) == (3, 1, 2)
    kept_it = [event for event in log if event[0] != "begin" or event[2] == 1]
    assert ledger_faults(replay(kept_it, "ack").survived, 1, 2) != []


def test_going_on_from_a_commit_without_a_cut_is_found() -> None:
    with pytest.raises(ValueError, match="commit 7, of which there is no cut"):
        replay(events(("begin", 2, 7)), "ack")


def test_a_push_after_the_fence_is_found_and_one_of_the_next_generation_is_not() -> None:
    take = ("take", 4, 9, 0, 0, 0)
    log = events(("begin", 1, -1), take, ("fence", 4), take, ("begin", 2, -1), take)
    assert replay(log, "take").late == [[1, *take[1:]]]


def test_partial_updates_are_what_some_partitions_have() -> None:
    acknowledged = [[1, 1, 1, 0, 0, 1, 1]]
    both, one = [[1, 1, 1, 0, 0, 0]], [[1, 1, 1, 0, 0, 0], [1, 2, 5, 0, 0, 1]]
    assert partial_updates(acknowledged, [both, both]) == set()
    assert partial_updates(acknowledged, [both, one]) == {(1, 2, 5)}
    assert partial_updates(acknowledged, [both, []]) == {(1, 1, 1)}


def test_a_growing_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "ps-0.jsonl"
    tail = Tail(file)
    assert tail.read() == []
    file.write_text('["a",1]\n["b"')
    assert tail.read() == [["a", 1]]
    with file.open("a") as more:
        more.write(',2]\n["c",3]\n')
    assert tail.read() == [["b", 2], ["c", 3]]


def test_a_schedule_is_data() -> None:
    for number in range(200):
        schedule = random_schedule(3, number)
        assert schedule == random_schedule(3, number)
        assert Schedule.from_json(json.loads(schedule.dumps())) == schedule
    assert random_schedule(3, 0) != random_schedule(4, 0)


def test_schedules_by_chance_do_everything_to_everybody() -> None:
    chosen = [random_schedule(1, number) for number in range(300)]
    assert {action.do for s in chosen for action in s.actions} == set(DOES) - {"continue", "end"}
    assert {action.to[0] for s in chosen for action in s.actions} == {"worker", "ps", "evaluator", "launcher"}
    assert {s.job.strategy for s in chosen} == {"async", "bounded", "sync"}
    assert {action.at.get("phase") for s in chosen for action in s.actions} >= {"hold", "cut", "part", "manifest"}
    assert not any(action.do == "fill disk" for n in range(300) for action in random_schedule(1, n, disk=False).actions)


@pytest.mark.parametrize("wrong", [{"do": "explode"}, {"at": {"hour": 4}}, {"at": {"commit": 1, "phase": "never"}}])
def test_a_wrong_action_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        Action(**{"at": {"step": 1}, "do": "kill", **wrong})  # type: ignore[arg-type]


def test_a_failing_schedule_is_shrunk_to_what_it_takes(tmp_path: Path) -> None:
    def fails(schedule: Schedule) -> bool:
        does = [action.do for action in schedule.actions]
        return "kill" in does and "scale" in does and schedule.job.ps > 1

    some = [Action({"step": n}, do, workers=2) for n, do in enumerate(["stop", "scale", "slow", "kill", "kill"])]
    smallest = shrink(Schedule(Shape(ps=3, tcp=True, strategy="sync", evaluator=True), tuple(some)), fails)
    assert sorted(action.do for action in smallest.actions) == ["kill", "scale"]
    assert smallest.job == Shape(ps=3)
    path = keep(smallest, "found", tmp_path)
    assert kept(tmp_path) == {"found": path}
    assert Schedule.from_json(json.loads(path.read_text())) == smallest


def test_what_is_cut_off_arrives_late_and_whole() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    with server, Proxy() as proxy:
        host, port = proxy.address.split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(f"worker-1 {address}\n".encode().ljust(64))
        called, _ = server.accept()
        client.sendall(b"before")
        assert called.recv(100) == b"before"
        proxy.cut("worker-1")
        client.sendall(b"meanwhile")
        called.settimeout(0.1)
        with pytest.raises(TimeoutError):
            called.recv(100)
        proxy.heal("worker-1")
        called.settimeout(10)
        assert called.recv(100) == b"meanwhile"
        called.sendall(b"answer")
        assert client.recv(100) == b"answer"
        client.close()
        assert called.recv(100) == b""
        called.close()
