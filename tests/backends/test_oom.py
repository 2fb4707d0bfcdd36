"""What is known of a process that somebody else has killed, from files as kernels write them, and from this one's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfleet.backends.oom import OomKills

V2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
LIMIT = "out of memory: its cgroup's limit was reached"
MACHINE = "probably out of memory: the kernel has just ended a process for that"
UNKNOWN = "perhaps out of memory"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "file", "text"),
    [
        ("0::/user.slice/a\n", "sys/fs/cgroup/user.slice/a/memory.events", V2),
        ("0::/../../b\n", "sys/fs/cgroup/memory.events", V2),  # a container sees its own cgroup as the root
        ("0::/\n", "sys/fs/cgroup/memory.events", V2),
        ("3:cpu,cpuacct:/\n4:memory:/pods/c\n0::/\n", "sys/fs/cgroup/memory/pods/c/memory.oom_control", V1),
        ("4:memory:/docker/c\n0::/\n", "sys/fs/cgroup/memory/memory.oom_control", V1),
    ],
)
def test_the_count_of_its_own_cgroup_is_found(tmp_path, cgroup, file, text):
    write(tmp_path, "proc/self/cgroup", cgroup)
    write(tmp_path, file, text.format(4))
    kills = OomKills(tmp_path)
    assert kills.evidence() == UNKNOWN
    write(tmp_path, file, text.format(5))
    assert kills.evidence() == LIMIT
    assert kills.evidence() == UNKNOWN  # that one was for another process


def test_a_machine_that_was_short_of_memory_is_told_too(tmp_path):
    write(tmp_path, "proc/vmstat", "nr_free_pages 1\noom_kill 7\n")
    kills = OomKills(tmp_path)
    write(tmp_path, "proc/vmstat", "nr_free_pages 1\noom_kill 8\n")
    assert kills.evidence() == MACHINE


@pytest.mark.parametrize("text", ["", "oom_kill\n", "oom_kill many\n", "0::\n"])
def test_nothing_that_is_readable_is_no_trouble(tmp_path, text):
    for path in ("proc/self/cgroup", "sys/fs/cgroup/memory.events", "proc/vmstat"):
        write(tmp_path, path, text)
    assert OomKills(tmp_path).evidence() == UNKNOWN
    assert OomKills(tmp_path / "nowhere").evidence() == UNKNOWN


LAUNCHER = """
import os, sys
from pathlib import Path
from tfleet.backends.processes import Children
group = Path(sys.argv[1])
(group / "cgroup.procs").write_text(str(os.getpid()))
eater = "b = bytearray(400 << 20); b[::4096] = b'x' * len(b[::4096])"
with Children() as children:
    child = children.start("worker", 0, [sys.executable, "-c", eater], {}, Path(os.devnull))
    while not children.poll():
        pass
    print(child.outcome())
"""


@pytest.mark.processes
def test_a_process_that_needs_more_than_its_cgroup_may_have(tmp_path):
    top, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not top.is_dir():
        top, limit = Path("/sys/fs/cgroup"), "memory.max"
    group = top / f"tfleet-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(200 << 20))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"a cgroup of one's own needs rights on {top}: {error.strerror}")
    try:
        done = subprocess.run([sys.executable, "-c", LAUNCHER, str(group)], capture_output=True, text=True, timeout=60)
    finally:
        group.rmdir()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"was killed (SIGKILL): {LIMIT}\n"
