"""Export of a trained model, laid out as TensorFlow Serving reads it: `directory/<version>/`.

A version folder holds the SavedModel, `model.keras` (the same model for Keras, compiled, its optimizer as new: the
slots are in the checkpoints) and `tfleet.json` (where it comes from). It appears under its number complete or not at
all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfleet.spec.errors import JobFailed, WrongInput
from tfleet.spec.plain import plain
from tfleet.tasks.user_code import user_code
from tfleet.worker.default_signatures import default_signatures
from tfleet.worker.model_check import in_short

KERAS_FILE = "model.keras"
FACTS_FILE = "tfleet.json"
TEMPORARY = ".tmp-"
"""Prefix of folders that are being written: no number, so that a model server passes them by."""

_LOG = logging.getLogger(__name__)


def export(
    model: keras.Model,
    signatures: Mapping[str, Any] | None,
    directory: Path,
    version: int | None = None,
    facts: Mapping[str, Any] | None = None,
    example: Any = None,
) -> Path:
    """Writes `model` as a new version below `directory`; blocks until it is on the disk.

    Any number of exports may run at once, in any process: each gets a version of its own.

    Args:
        model: a built model; it is not changed.
        signatures: names to `tf.function`s with an input signature, for `tf.saved_model`; `serving_default` is added
            when it is missing (the first). None: `serving_default` and `predict` as `default_signatures` makes them.
        directory: the folder of the versions; made when it does not exist.
        version: the version's number, at least 1; None: the next after the greatest there is, from 1.
        facts: plain values for `tfleet.json`, such as task, params, step, metrics; versions of tensorflow, keras and
            tfleet are added. NaN and infinities become text, as JSON has none.
        example: inputs of some batch; needed for the default signatures of a subclassed model only.

    Returns:
        The version's folder.

    Raises:
        WrongInput: when the version exists or is below 1, a signature cannot be traced, or a subclassed model comes
            without `example`.
        JobFailed: when `directory` cannot be written.
    """
    if version is not None and version < 1:
        raise WrongInput(
            f"export version {version} cannot be: give a whole number from 1, or none for the next free one"
        )
    functions = _traced(signatures) if signatures else default_signatures(model, example)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(directory) as folder:
            _write_saved_model(model, functions, folder)
            _write_keras(model, folder / KERAS_FILE)
            text = json.dumps(plain({**(facts or {}), "versions": _versions()}), indent=2, allow_nan=False)
            (folder / FACTS_FILE).write_text(text + "\n", encoding="utf-8")
            _sync(folder)
            target = _publish(folder, directory, version)
        _sync_one(directory)
    except (OSError, tf.errors.OpError) as error:
        # TensorFlow's own file system says `path; reason`.
        reason = error.strerror if isinstance(error, OSError) else in_short(error).rpartition("; ")[2]
        raise JobFailed(
            f"the model cannot be exported to {directory}: {reason or error}; "
            "make room there, then run 'tfleet export' (the commits are kept)"
        ) from error
    return target


def _traced(signatures: Mapping[str, Any]) -> dict[str, Any]:
    for name, function in signatures.items():
        if getattr(function, "input_signature", None) is None:
            raise WrongInput(
                f"signature {name} of the task is a {type(function).__name__} without an input signature; "
                "decorate it with @tf.function(input_signature=[tf.TensorSpec(...)])"
            )
        with user_code(f"signature {name} of the task", "correct the function or its input signature"):
            function.get_concrete_function()
    return dict(signatures)


def _write_saved_model(model: keras.Model, functions: dict[str, Any], folder: Path) -> None:
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, function in functions.items():
        archive.add_endpoint(name, function)
    with _quiet_tensorflow():
        archive.write_out(str(folder), verbose=False)


def _write_keras(model: keras.Model, path: Path) -> None:
    try:
        model.save(path)
    except OSError:
        raise
    except Exception as error:
        # Whatever a user's get_config raises: the SavedModel is there anyway.
        path.unlink(missing_ok=True)
        _LOG.warning("%s was left out of the export, the SavedModel is complete: %s", KERAS_FILE, in_short(error))


def _publish(folder: Path, directory: Path, version: int | None) -> Path:
    # Renaming a folder onto one that has files fails, which decides between exports that run at once.
    while True:
        target = directory / str(version or _next_version(directory))
        try:
            os.rename(folder, target)
            return target
        except OSError:
            if not target.exists():
                raise
        if version is not None:
            raise WrongInput(
                f"export version {version} exists already in {directory}; give another number, or none for the next"
            )


def _next_version(directory: Path) -> int:
    return max((int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()), default=0) + 1


@contextlib.contextmanager
def _temporary_folder(directory: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=directory))
    # mkdtemp makes it private; a model server may run as another user of this machine.
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _versions() -> dict[str, str]:
    # Not `tfleet.__version__`: the package's top imports the API, which is above the worker.
    try:
        own = metadata.version("tfleet")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return {"tensorflow": tf.__version__, "keras": keras.__version__, "tfleet": own}
