"""The lifeline: how a replica learns that its launcher has died, even of SIGKILL.

The launcher holds the write end of a pipe and every replica inherits the read end. Nothing is ever written: the
kernel closes the write end when the launcher ends, however that happens, and every reader sees end-of-file.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Mapping

from tfleet.spec.environment import LIFELINE_FD
from tfleet.spec.errors import WrongInput


def lifeline_fd(environ: Mapping[str, str] | None = None) -> int | None:
    """Returns the inherited descriptor of the lifeline, or None where the launcher gave none.

    Args:
        environ: the environment to read; by default that of this process.

    Raises:
        WrongInput: when the variable does not name an open pipe.
    """
    text = (os.environ if environ is None else environ).get(LIFELINE_FD, "")
    if not text:
        return None
    try:
        handle = int(text)
        if stat.S_ISFIFO(os.fstat(handle).st_mode):
            return handle
    except (ValueError, OSError, OverflowError):
        pass
    raise WrongInput(f"{LIFELINE_FD} is {text!r}, which is not an open pipe; unset it, only a launcher sets it")


def watch_lifeline(on_death: Callable[[], None], environ: Mapping[str, str] | None = None) -> threading.Thread | None:
    """Calls `on_death` from a daemon thread once the launcher has died; does not block.

    Args:
        on_death: what to do then; it runs in the watching thread, while the others go on.
        environ: the environment to read; by default that of this process.

    Returns:
        The watching thread, or None where there is no lifeline (a replica on a cluster).

    Raises:
        WrongInput: when the environment names a descriptor that is not a pipe.
    """
    handle = lifeline_fd(environ)
    if handle is None:
        return None

    def watch() -> None:
        while os.read(handle, 1):
            pass
        on_death()

    thread = threading.Thread(target=watch, name="lifeline", daemon=True)
    thread.start()
    return thread


def end_at_once() -> None:
    """Ends this process with SIGKILL, and everything it has started where it leads a process group; never returns.

    An `on_death` for replicas that have nothing more to save: no exception handler or exit hook can hold it up.
    """
    target = os.killpg if os.getpgrp() == os.getpid() else os.kill
    target(os.getpid(), signal.SIGKILL)
