"""What replicas print must never end them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfleet.spec.output import lossy

FULL = "/dev/full"


def test_lines_are_out_at_once_and_whole(tmp_path):
    handle = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    stream = lossy(handle)
    print("größer", file=stream)
    print("one", "two", file=stream, flush=True)
    assert (tmp_path / "log").read_text() == "größer\none two\n"
    assert stream.fileno() == handle
    os.close(handle)


@pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full")
def test_a_full_disk_costs_the_lines_only():
    handle = os.open(FULL, os.O_WRONLY)
    stream = lossy(handle)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    os.close(handle)
    print("nor does one that is closed", file=stream, flush=True)


@pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full")
@pytest.mark.parametrize(("protected", "code"), [(True, 3), (False, 1)])
def test_the_exit_code_of_a_process_is_its_own(protected, code):
    call = "from tfleet.spec.output import never_fail_to_print; never_fail_to_print()" if protected else ""
    program = f"import sys\n{call}\nprint('a line', flush=True)\nprint('another', file=sys.stderr)\nsys.exit(3)"
    with open(FULL, "w") as full:
        assert subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full).returncode == code
