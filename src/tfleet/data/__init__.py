"""Index-addressable datasets: arrays, PyDatasets, TFRecord and CSV files, and the bundled digits. No TensorFlow."""

from __future__ import annotations

from tfleet.data.adapt import as_source
from tfleet.data.class_weight import class_weights
from tfleet.data.csv_records import CsvRecords
from tfleet.data.digits import load_digits
from tfleet.data.mnist_files import load_mnist
from tfleet.data.records import Records
from tfleet.data.source import Batch, Source

__all__ = ["Batch", "CsvRecords", "Records", "Source", "as_source", "class_weights", "load_digits", "load_mnist"]
