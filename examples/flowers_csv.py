"""The iris flowers again, read row by row from CSV files that need not fit into memory.

tfleet train examples/flowers_csv.py:task --data-dir examples
"""

from pathlib import Path

import flowers

from tfleet.data import CsvRecords
from tfleet.tasks import Task

MEASURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def parse(row: dict[str, str]):
    return [float(row[name]) for name in MEASURES], flowers.SPECIES.index(row["species"])


def data(data_dir: str = str(Path(__file__).parent)):
    return {"train": CsvRecords(f"{data_dir}/iris*.csv", parse)}


task = Task(flowers.model, data, name="flowers_csv")
