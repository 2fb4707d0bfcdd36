"""The end of a process that has nothing left to do but to tell its exit code."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Ends this process with `code` as the interpreter would, but without taking all objects and libraries apart.

    Threads that are no daemons are waited for, exit handlers run, output is flushed: in the order and by the means of
    `multiprocessing`, whose children end like this too. What is left out takes half a second where TensorFlow is
    loaded, and the operating system frees the memory anyway.
    """
    threads_end, handlers = getattr(threading, "_shutdown", None), getattr(atexit, "_run_exitfuncs", None)
    if threads_end is None or handlers is None:
        sys.exit(code)
    with contextlib.suppress(KeyboardInterrupt):  # as in the interpreter: whoever waits for threads waits no longer
        threads_end()
    handlers()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads it, closed, or there is none
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)  # what libraries have printed by the means of C
    os._exit(code)
