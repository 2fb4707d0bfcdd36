"""Runs one script for `tfleet launch`, and ends it and its children when the launcher is gone.

`python -m tfleet.backends.supervisor --role worker --index 0 --run-dir RUN -- command ...`: what stands before
`--` is there for people who read the process list. The supervisor leads a process group; the script and what it
starts belong to it. It waits for the first of three events: the script ends (its exit code is passed on, 128+n
after signal n), SIGTERM arrives, or the lifeline says that the launcher has died; after the last two the group
gets SIGTERM and, when the script lives on, SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

from tfleet.spec.environment import LIFELINE_FD
from tfleet.spec.lifeline import lifeline_fd

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    """Runs the command after `--` to its end; blocks.

    Args:
        arguments: what follows the program's name.

    Returns:
        The exit code of the command, 128+n when signal n ended it, 126 or 127 when it could not be started.
    """
    command = arguments[arguments.index("--") + 1 :]
    lifeline = lifeline_fd()
    wakeup, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    asked: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in ENDING:
        signal.signal(number, lambda number, _: asked.append(number))

    env = {name: value for name, value in os.environ.items() if name != LIFELINE_FD}
    try:
        script = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    orphaned = False
    watched = [wakeup] if lifeline is None else [wakeup, lifeline]
    while script.poll() is None and not asked and not orphaned:
        ready = select.select(watched, [], [])[0]
        orphaned = lifeline in ready
        if wakeup in ready:
            os.read(wakeup, 4096)
    if script.returncode is None:
        _end_group(script)
    if orphaned:
        # Nobody is left who ends what the script has started and not ended.
        os.killpg(0, signal.SIGKILL)
    code = script.returncode
    return 128 - code if code < 0 else code


def _end_group(script: subprocess.Popen[bytes]) -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while script.poll() is None:
        if time.monotonic() >= deadline:
            # The supervisor too: its own end by signal 9 is how the launcher learns what was needed.
            os.killpg(0, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
