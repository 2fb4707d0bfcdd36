"""Real jobs with an embedding of which only touched rows travel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jobs import nothing_left, tfleet

from tfleet.checkpoint.store import Store

pytestmark = [pytest.mark.processes, pytest.mark.tf]

WORDS = '''
"""A table of 2003 x 64, which is large enough to be sparse; some words come often, some once."""
import keras
import numpy as np
from keras import layers
from tfleet import Task

def model(optimizer: str = "rmsprop"):
    words, more = keras.Input((4,), dtype="int32", name="words"), keras.Input((3,), name="more")
    meaning = layers.Flatten()(layers.Embedding(2003, 64)(words))
    h = layers.Dense(8, activation="relu")(layers.Concatenate()([meaning, more]))
    built = keras.Model({"words": words, "more": more}, layers.Dense(1)(h))
    built.compile(optimizer, "mse", metrics=["mae"])
    return built

def data():
    random = np.random.default_rng(0)
    words = (2003 * random.random((640, 4)) ** 3).astype("int32")
    x = {"words": words, "more": random.random((640, 3)).astype("float32")}
    y = np.sin(words.sum(1) / 900.0).astype("float32")
    return {"train": (x, y), "test": (x, y)}

task = Task(model, data)
'''


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("task") / "words.py"
    path.write_text(WORDS)
    return f"{path}:task"


def committed(run: Path) -> tuple[dict[str, bytes], dict[str, object]]:
    store = Store(run / "checkpoints")
    manifest, _ = store.newest()
    assert manifest is not None
    parameters, slots = store.read(manifest, 0, manifest.parameters)
    assert np.isfinite(parameters).all()
    return {"parameters": parameters.tobytes(), **{name: s.tobytes() for name, s in slots.items()}}, manifest.layout


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_sparse_and_dense_end_with_the_same_bits(tmp_path: Path, task: str, optimizer: str) -> None:
    found, layouts, metrics = {}, {}, {}
    for mode in ("exact", "never"):
        run = tmp_path / mode
        done = tfleet(
            "train", task, "--workers", "1", "--ps", "2", "--steps", "100", "--batch-size", "16", "--sparse", mode,
            "--param", f"optimizer={optimizer}", "--run-dir", str(run), "-o", "json",
        )  # fmt: skip
        assert done.code == 0, done.err
        metrics[mode] = done.json()["evaluation"]["metrics"]
        found[mode], layouts[mode] = committed(run)
        nothing_left(run)
    assert layouts["exact"].get("sparse") == [0]
    assert "sparse" not in layouts["never"]
    assert found["exact"] == found["never"]
    assert metrics["exact"] == metrics["never"]


def test_lazy_adam_trains_with_two_workers_and_goes_on_dense(tmp_path: Path, task: str) -> None:
    run = str(tmp_path / "run")
    common = ("--workers", "2", "--ps", "2", "--batch-size", "16", "--param", "optimizer=adam", "--run-dir", run)
    first = tfleet("train", task, *common, "--steps", "150", "--sparse", "lazy", "-o", "json")
    assert first.code == 0, first.err
    assert first.json()["ledger"]["acknowledged"] == 150
    assert committed(Path(run))[1].get("sparse") == [0]
    second = tfleet("train", task, *common, "--steps", "200", "--sparse", "never", "--resume", "-o", "json")
    assert second.code == 0, second.err
    assert "sparse" not in committed(Path(run))[1]
    assert second.json()["evaluation"]["metrics"]["loss"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sparse", "lazy"), "sparse=lazy does nothing with the optimizer RMSprop"),
        (("--sparse", "lazy", "--strategy", "sync"), "sparse=lazy does nothing with strategy sync"),
        (("--sparse", "some"), "exact"),
    ],
)
def test_what_would_do_nothing_is_refused(tmp_path: Path, task: str, arguments: tuple[str, ...], message: str) -> None:
    done = tfleet("train", task, "--workers", "1", "--ps", "1", "--run-dir", str(tmp_path / "run"), *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
