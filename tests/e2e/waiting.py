"""Waiting for a cluster: the only place in these tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class WaitedTooLong(AssertionError):
    """What was waited for did not come; says what, how long, and what was there instead."""


def wait_until(look: Callable[[], T], what: str, seconds: float = 180, every: float = 0.5) -> T:
    """Looks again and again until it sees something true.

    Args:
        look: returns what is waited for, or something false; an AssertionError counts as not yet, and its text is
            kept for the message.
        what: is waited for, for the message.
        seconds: after which waiting is given up; generous, as no test asserts a time.
        every: seconds between two looks.

    Returns:
        The first true value of `look`.

    Raises:
        WaitedTooLong: with the last thing that was seen.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            seen = look()
            if seen:
                return seen
            last = repr(seen)
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > end:
            raise WaitedTooLong(f"waited {seconds:.0f} s for {what}; last seen: {last[:2000]}")
        time.sleep(every)
