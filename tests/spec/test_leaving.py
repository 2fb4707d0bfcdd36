"""The quick end of a process: all that a program may rely on still happens."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys

import pytest

from tfleet.spec.leaving import leave

ORDERLY = """
import atexit, ctypes, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from tfleet.spec.leaving import leave

class Object:
    def __del__(self):
        print("taken apart")

kept = Object()
pool = ThreadPoolExecutor(1)
pool.submit(print, "in a pool")  # its idle thread would wait for ever
atexit.register(print, "handler")
ctypes.CDLL(None).printf(b"of C\\n")
threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
print("no end of line", end=" ")
print("an error", file=sys.stderr)
leave(3)
"""


@pytest.mark.processes
def test_threads_and_handlers_end_and_output_is_there_but_objects_are_not_taken_apart():
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", ORDERLY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=buffered)
    assert done.returncode == 3
    assert done.stderr == "an error\n"
    assert "in a pool" in done.stdout
    assert done.stdout.endswith("thread\nhandler\nof C\n")
    assert "taken apart" not in done.stdout


@pytest.mark.processes
@pytest.mark.parametrize(
    "streams", ["sys.stdout.close()", "sys.stdout = None", "sys.stdout = open(1, 'w'); print('lost'); os.close(1)"]
)
def test_output_that_nobody_takes_changes_nothing(streams: str):
    program = f"import os, sys; from tfleet.spec.leaving import leave; {streams}; leave(130)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_an_interpreter_of_another_kind_ends_as_it_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(atexit, "_run_exitfuncs")
    with pytest.raises(SystemExit) as ended:
        leave(2)
    assert ended.value.code == 2
