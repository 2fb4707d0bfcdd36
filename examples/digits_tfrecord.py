"""TFRecord files with a parse function: the bundled digits, as `tf.train.Example`s.

python examples/digits_tfrecord.py /tmp/digits        # writes the files
tfleet train examples/digits_tfrecord.py:task --data-dir /tmp/digits
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfleet.data import Records, load_digits
from tfleet.tasks import Task, load_task


def write(folder: str, shards: int = 4) -> None:
    """Writes train-0.tfrecord ... and test.tfrecord."""
    digits = load_digits()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in range(shards):
        write_file(f"{folder}/train-{i}.tfrecord", digits.x_train[i::shards], digits.y_train[i::shards])
    write_file(f"{folder}/test.tfrecord", digits.x_test, digits.y_test)


def write_file(path, images, labels):
    with tf.io.TFRecordWriter(path) as writer:
        for image, label in zip(images, labels, strict=True):
            pixels = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
            digit = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={"image": pixels, "label": digit})
            writer.write(tf.train.Example(features=features).SerializeToString())


def parse(record: bytes):
    feature = tf.train.Example.FromString(record).features.feature
    pixels = np.frombuffer(feature["image"].bytes_list.value[0], np.uint8).reshape(28, 28, 1)
    return pixels.astype(np.float32) / 255, np.int64(feature["label"].int64_list.value[0])


def data(data_dir: str):
    return {"train": Records(f"{data_dir}/train-*", parse), "test": Records(f"{data_dir}/test.tfrecord", parse)}


task = Task(load_task("mnist").model, data, name="digits_tfrecord")

if __name__ == "__main__":
    write(sys.argv[1])
