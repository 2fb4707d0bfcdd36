"""What `eval` and `export` share: they load TensorFlow into this process, quietly, or run in a pod of the cluster."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from tfleet.api.places import LocalPlace, Place, place_of
from tfleet.backends.kubernetes.handle import is_handle
from tfleet.cli.output import tell
from tfleet.spec.errors import WrongInput
from tfleet.spec.importing import PLOTS, quick_imports
from tfleet.spec.rundir import RunDir


def load() -> ModuleType:
    """Imports and returns `tfleet.worker.offline`; takes seconds.

    Raises:
        WrongInput: when TensorFlow or Keras is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with _quiet(), quick_imports(PLOTS):
            return importlib.import_module("tfleet.worker.offline")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise WrongInput(f"{error.name} is not installed; install it with: pip install 'tfleet[cpu]'") from None


def run(handle: str, verb: str, commit: int, here: Callable[[RunDir], dict[str, Any]]) -> tuple[Place, dict[str, Any]]:
    """Runs a command on a run: in this process, or for a job on Kubernetes in a pod that sees its volume; blocks.

    Args:
        handle: of the run.
        verb: eval or export.
        commit: number of the commit; -1: the newest.
        here: runs it in this process.

    Returns:
        Where the run is, and the command's answer.

    Raises:
        TfleetError: what the command said.
    """
    if not is_handle(handle):
        folder = RunDir.existing(handle)
        return LocalPlace(folder), here(folder)
    from tfleet.backends.kubernetes.job import open_job
    from tfleet.backends.kubernetes.tools import run_tool

    with contextlib.closing(open_job(handle)) as job:
        place = place_of(job)
        return place, run_tool(job.cluster, job.at, verb, tell, ["--commit", str(commit)])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TensorFlow's C++ code writes to stderr before it reads its log level; shows it on failure."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(real, 2)
            kept.seek(0)
            os.write(2, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
