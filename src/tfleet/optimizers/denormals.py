"""Flushing of denormal numbers to zero, as TensorFlow does in all of its kernels.

TensorFlow computes with denormals (|x| < 1.2e-38 in float32) as zero; NumPy computes with them as they are. To give
the same bits, and because denormals make every pass several times slower once they have settled in the slots of
parameters without a gradient (rows of an embedding), the optimizers run with the processor set as TensorFlow sets it:
bits FTZ and DAZ of the MXCSR register (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1,
10.2.3), through the C library's `fesetenv`.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

import numpy as np

_ENVIRONMENT_BYTES = 64
_MXCSR = 7
"""Index of MXCSR in `fenv_t`, in 32-bit words, with glibc and musl on x86-64."""
_FLUSH = 0x8040
"""FTZ (bit 15) and DAZ (bit 6)."""

_Environment = ctypes.c_uint32 * (_ENVIRONMENT_BYTES // 4)


class FlushDenormals:
    """A context in which this thread's float arithmetic takes and gives zero for denormals; costs about 1 us.

    It may be entered again after it was left, but not while it is entered, nor by two threads at once. On other
    systems than Linux on x86-64 it does nothing: see `available`.
    """

    def __init__(self) -> None:
        self._before = _Environment()
        self._inside = _Environment()

    def __enter__(self) -> None:
        if (library := _library()) is not None:
            library.fegetenv(self._before)
            ctypes.memmove(self._inside, self._before, _ENVIRONMENT_BYTES)
            self._inside[_MXCSR] |= _FLUSH
            library.fesetenv(self._inside)

    def __exit__(self, *_: object) -> None:
        if (library := _library()) is not None:
            library.fesetenv(self._before)


def available() -> bool:
    """Whether `FlushDenormals` works here; where not, results differ from TensorFlow's where denormals arise."""
    return _library() is not None


@cache
def _library() -> ctypes.PyDLL | None:
    """Returns the C library once it has been seen to flush a denormal, else None."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return None
    try:
        library = ctypes.PyDLL(None)
        library.fegetenv.argtypes = library.fesetenv.argtypes = [_Environment]
    except (OSError, AttributeError):
        return None
    before, inside = _Environment(), _Environment()
    tiny = np.full(16, 1e-30, np.float32)
    library.fegetenv(before)
    library.fegetenv(inside)
    inside[_MXCSR] |= _FLUSH
    library.fesetenv(inside)
    flushed = not np.any(tiny * np.float32(1e-10))
    library.fesetenv(before)
    return library if flushed and np.all(tiny * np.float32(1e-10)) else None
