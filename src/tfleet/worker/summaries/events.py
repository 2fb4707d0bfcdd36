"""Event files for TensorBoard, written by TensorFlow's own writer, one record for all values of a step.

`tf.summary.scalar` runs some ten operations for each value; a record that is built here and handed to the same
C++ writer (the ImportEvent operation) costs about a sixteenth of four such scalars, so that the step loop does not
notice. Values use the classic fields of the Summary proto, which every TensorBoard reads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfleet.spec.errors import JobFailed

FLUSH_MILLIS = 5000
"""Milliseconds after which written records are in the file at the next write at the latest."""

QUEUE = 100
"""Records that wait in memory at most."""

Event = tf.compat.v1.Event
Value = tf.compat.v1.Summary.Value


class EventWriter:
    """One event file in one folder, made at the first write. One thread may use it.

    Blocks only to copy a record into the writer's queue, and about every five seconds to write the queue to the file.
    All methods raise `JobFailed` when the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        """Names the folder; nothing is created yet."""
        self._folder = folder
        self._resource: Any = None

    def write(self, step: int, values: Iterable[Any]) -> None:
        """Writes Summary.Value protos as one record.

        Args:
            step: the global step they belong to.
            values: the values; none writes nothing.
        """
        event = Event(step=step, wall_time=time.time())
        event.summary.value.extend(values)
        if event.summary.value:
            self._put(event)

    def purge(self, step: int) -> None:
        """Tells TensorBoard to forget what earlier files of this folder say about `step` and later steps.

        Args:
            step: the first global step that will be written again, after a rollback or a resume.
        """
        log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._put(Event(step=step, wall_time=time.time(), session_log=log))

    def flush(self) -> None:
        """Writes the queue to the file; blocks until the operating system has it."""
        if self._resource is not None:
            self._call(tf.raw_ops.FlushSummaryWriter, writer=self._resource)

    def close(self) -> None:
        """Flushes and closes the file; may be called again. A later write opens a new file."""
        if self._resource is not None:
            resource, self._resource = self._resource, None
            self._call(tf.raw_ops.CloseSummaryWriter, writer=resource)

    def _put(self, event: Any) -> None:
        if self._resource is None:
            self._resource = self._open()
        self._call(tf.raw_ops.ImportEvent, writer=self._resource, event=event.SerializeToString())

    def _open(self) -> Any:
        # A name of its own: writers of equal shared_name would be one writer, to one file.
        resource = tf.raw_ops.SummaryWriter(
            shared_name=f"tfleet-{self._folder}-{id(self)}-{time.time_ns()}", container=""
        )
        self._call(
            tf.raw_ops.CreateSummaryFileWriter,
            writer=resource,
            logdir=str(self._folder),
            max_queue=QUEUE,
            flush_millis=FLUSH_MILLIS,
            filename_suffix=".tfleet",
        )
        return resource

    def _call(self, operation: Any, **arguments: Any) -> None:
        try:
            with tf.device("CPU:0"):
                operation(**arguments)
        except tf.errors.OpError as error:
            # What a writer that has failed still holds is lost; the next write begins a new file.
            broken, self._resource = self._resource, None
            if broken is not None:
                with contextlib.suppress(tf.errors.OpError):
                    tf.raw_ops.CloseSummaryWriter(writer=broken)
            raise JobFailed(
                f"TensorBoard summaries cannot be written in {self._folder}: {error.message}; "
                "make room or make it writable, or set summary.every_steps to 0"
            ) from None


class Scalars:
    """Named numbers by global step, in one folder. One thread may use it.

    Blocking and errors are those of `EventWriter`.
    """

    def __init__(self, folder: Path) -> None:
        """Names the folder; nothing is created before the first write."""
        self._events = EventWriter(folder)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes all values of one step as one record.

        Args:
            step: the global step.
            values: tags, such as `loss` or `steps_per_second`, to numbers; NaN and infinities are kept.
        """
        self._events.write(step, (Value(tag=tag, simple_value=float(number)) for tag, number in values.items()))

    def purge(self, step: int) -> None:
        """Tells TensorBoard to forget `step` and what came after, as a rollback or a resume will write it again."""
        self._events.purge(step)

    def flush(self) -> None:
        """Writes what was queued to the file."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the file; may be called again."""
        self._events.close()
