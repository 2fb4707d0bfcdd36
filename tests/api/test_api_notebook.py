"""A notebook trains a task that one of its cells wrote to a file, and its kernel never loads TensorFlow."""

import pytest

pytestmark = [pytest.mark.tf, pytest.mark.processes]

TASK = """%%writefile my_task.py
import keras
import numpy as np
from tfleet.tasks import Task


def model(units: int = 8):
    layers = [keras.layers.Dense(units, "relu"), keras.layers.Dense(1, "sigmoid")]
    built = keras.Sequential([keras.Input((4,)), *layers])
    built.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return built


def data():
    x = np.random.default_rng(0).normal(size=(400, 4)).astype("float32")
    y = (x.sum(axis=1, keepdims=True) > 0).astype("float32")
    return {"train": (x[:300], y[:300]), "test": (x[300:], y[300:])}


task = Task(model, data)
"""

REFUSED = """
try:
    tfleet.train(object())
except tfleet.WrongInput as error:
    print(error)
"""

TRAINED = """
run = tfleet.train("my_task.py:task", workers=1, ps=1, steps=40, run_dir="run", summary_every=0)
run
"""

USED = """
import sys
assert run.evaluate() == run.metrics, (run.evaluate(), run.metrics)
assert run.history()[-1]["step"] == 40
assert not {"tensorflow", "keras"} & set(sys.modules)
"""


def test_a_notebook_trains_a_task_of_its_own(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = ["import tfleet", REFUSED, TASK, TRAINED, USED]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    kernel = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=kernel).execute()
    refused, trained = notebook.cells[1].outputs, notebook.cells[3].outputs
    assert "'%%writefile my_task.py' as the first line of its cell" in refused[0].text
    printed = "".join(output.text for output in trained if output.output_type == "stream")
    assert printed.startswith("run directory: run\n")
    assert "held out at step 40: accuracy " in printed
    shown = [output.data["text/plain"] for output in trained if output.output_type == "execute_result"]
    assert shown[0].startswith("Run('run': done, step 40, held out: accuracy ")
