from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tfleet.data import CsvRecords, as_source
from tfleet.spec.errors import WrongInput

FORMS = ("NumPy arrays", "keras.utils.PyDataset", "TFRecord/CSV files with a parse function")


class BatchDataset:
    """Named as TensorFlow's class is; the real one is in tests/tasks."""

    __module__ = "tensorflow.python.data.ops.batch_op"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (BatchDataset(), "a tf.data.Dataset, whose samples have no addresses"),
        ((i for i in range(3)), "a generator, whose samples have no addresses"),
        (iter([1]), "a list_iterator, whose samples have no addresses"),
        (np.ones(3), "a ndarray, which cannot be trained on"),
        ([np.ones(3), np.ones(3)], "a list, which cannot be trained on"),
        ({"x": np.ones(3)}, "a dict, which cannot be trained on"),
        (None, "a NoneType, which cannot be trained on"),
        ("data.csv", "a str, which cannot be trained on"),
    ],
)
def test_what_has_no_addresses_is_refused_with_the_three_forms_that_have(given, kind):
    with pytest.raises(WrongInput) as caught:
        as_source(given, "test")
    assert str(caught.value).startswith(f"test is {kind}; give ")
    assert all(form in str(caught.value) for form in FORMS)


def test_a_source_stays_itself(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    source = CsvRecords(tmp_path / "a.csv", lambda row: (float(row["a"]),))
    assert as_source(source) is source


def test_an_empty_source_is_refused():
    class Nothing(CsvRecords):
        def __init__(self): ...

        def __len__(self):
            return 0

    with pytest.raises(WrongInput, match="test has no samples"):
        as_source(Nothing(), "test")


def test_data_and_tasks_import_neither_tensorflow_nor_keras():
    program = (
        "import sys, tfleet.data, tfleet.tasks; from tfleet.data import load_digits; load_digits();"
        "tfleet.tasks.check_name('mnist'); print(sorted({'tensorflow', 'keras', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
