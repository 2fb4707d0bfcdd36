"""Gradients in half the bytes: float16 or bfloat16, with error feedback.

What rounding takes from a gradient its sender keeps, and adds to the next one: after any number of gradients the sum of
what was sent differs from the sum of what was to be sent by one rounding error, not by as many. After Seide et al.,
"1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of Speech DNNs" (2014),
section 3.1: q = round(g + r), r := g + r - q.

Rounding is to nearest, ties to even. What is too large for the type becomes its largest number, and the rest stays in
the residual. NaN and infinity arrive as what they are, and leave nothing in the residual.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tfleet.spec.arrays import Float32s

Half = Literal["float16", "bfloat16"]
Codes = np.ndarray[Any, np.dtype[np.uint16]]
"""The bits of float16 or bfloat16 numbers."""

CHUNK = 1 << 14
"""Elements that are packed at a time: what is in between stays in the cache."""
LARGEST: dict[Half, np.float32] = {"float16": np.float32(65504), "bfloat16": np.float32((2 - 2.0**-7) * 2.0**127)}
"""The largest finite numbers of the types."""
_FLOAT32_LARGEST = np.finfo(np.float32).max
_INFINITY: dict[Half, int] = {"float16": 0x7C00, "bfloat16": 0x7F80}
_NAN: dict[Half, int] = {"float16": 0x7E00, "bfloat16": 0x7FC0}
_SIGN = np.uint16(0x8000)


class Packer:
    """Packs one sender's gradients, one after the other; all memory is taken once.

    Attributes:
        residual: float32 [size], always finite: what is still to be sent.
    """

    def __init__(self, dtype: Half, size: int) -> None:
        """Begins without a residual.

        Args:
            dtype: what numbers become.
            size: elements of each gradient.
        """
        self.residual: Float32s = np.zeros(size, np.float32)
        self._dtype: Half = dtype
        self._codes: Codes = np.empty(size, np.uint16)
        self._total: Float32s = np.empty(min(size, CHUNK), np.float32)
        self._scratch: Float32s = np.empty(min(size, CHUNK), np.float32)

    def pack(self, gradient: Float32s) -> Codes:
        """Returns the codes of gradient and residual together: uint16 [size], valid until the next call.

        Args:
            gradient: float32 [size], left as it is.
        """
        with np.errstate(all="ignore"):  # NaN and overflows are dealt with below
            for low in range(0, len(gradient), CHUNK):
                part = slice(low, low + CHUNK)
                self._pack(gradient[part], self.residual[part], self._codes[part])
        return self._codes

    def reset(self) -> None:
        """Forgets what is still to be sent, as for parameters that are others than before."""
        self.residual[:] = 0

    def _pack(self, gradient: Float32s, residual: Float32s, codes: Codes) -> None:
        total, scratch = self._total[: len(gradient)], self._scratch[: len(gradient)]
        np.add(gradient, residual, out=total)
        encode(total, codes, scratch, self._dtype)
        decode(codes, scratch, self._dtype)
        np.subtract(total, scratch, out=residual)
        if not np.isfinite(residual.sum()):  # rare; a sum that overflows costs the careful way, no more
            _careful(gradient, total, scratch, residual, codes, self._dtype)


def encode(values: Float32s, codes: Codes, scratch: Float32s, dtype: Half) -> None:
    """Rounds to nearest, ties to even; beyond the largest number to that; NaN stays NaN for float16 only.

    Args:
        values: float32 [n].
        codes: uint16 [n], overwritten.
        scratch: float32 [n], overwritten.
        dtype: what numbers become.
    """
    largest = LARGEST[dtype]
    np.clip(values, -largest, largest, out=scratch)
    if dtype == "float16":
        codes.view(np.float16)[:] = scratch
        return
    bits = scratch.view(np.uint32)
    # Half of the last place that stays, less one where that place is even: then a tie is not carried.
    np.right_shift(bits, 16, out=codes, casting="unsafe")
    codes &= np.uint16(1)
    bits += np.uint32(0x7FFF)
    bits += codes
    np.right_shift(bits, 16, out=codes, casting="unsafe")


def decode(codes: Codes, values: Float32s, dtype: Half) -> None:
    """Writes the numbers of the codes: every float16 and bfloat16 is a float32 too, so that nothing is rounded.

    Args:
        codes: uint16 [n].
        values: float32 [n], overwritten.
        dtype: what the codes are.
    """
    if dtype == "float16":
        values[:] = codes.view(np.float16)
        return
    bits = values.view(np.uint32)
    bits[:] = codes
    bits <<= np.uint32(16)


def _careful(
    gradient: Float32s, total: Float32s, scratch: Float32s, residual: Float32s, codes: Codes, dtype: Half
) -> None:
    """Puts right what NaN, infinity, or a sum beyond float32 have left in codes and residual."""
    np.clip(total, -_FLOAT32_LARGEST, _FLOAT32_LARGEST, out=total)  # both were finite: the rest is lost
    np.subtract(total, scratch, out=residual)
    wrong = ~np.isfinite(gradient)
    infinite = np.where(np.signbit(gradient), _SIGN, np.uint16(0)) | np.uint16(_INFINITY[dtype])
    codes[wrong] = np.where(np.isnan(gradient), np.uint16(_NAN[dtype]), infinite)[wrong]
    residual[wrong] = 0
