"""Blocking work (files) in a thread of its own, its result back in the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tfleet.spec.errors import TfleetError, out_of_memory
from tfleet.wire.loop import Loop

T = TypeVar("T")


def run(loop: Loop, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[str], None]) -> None:
    """Runs `work` in a thread; then, in the loop, `done` with its result or `failed` with a sentence.

    Only a `TfleetError` and want of memory count as a failure; anything else is a defect and shows its traceback.
    """

    def body() -> None:
        try:
            result = work()
        except TfleetError as error:
            message = str(error)
            loop.call_from_thread(lambda: failed(message))
        except MemoryError as error:
            short = out_of_memory("this ps", error, "give more ps, or more memory")
            loop.call_from_thread(lambda: failed(short))
        else:
            loop.call_from_thread(lambda: done(result))

    loop.start_thread(body)
