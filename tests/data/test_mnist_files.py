from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tfleet.data import load_mnist
from tfleet.spec.errors import WrongInput

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
LABELS = np.array([0, 9, 3, 3, 1, 5, 7], np.uint8)
FILES = {
    "train-images-idx3-ubyte": IMAGES[:5],
    "train-labels-idx1-ubyte": LABELS[:5],
    "t10k-images-idx3-ubyte": IMAGES[5:],
    "t10k-labels-idx1-ubyte": LABELS[5:],
}


def idx(array):
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write(folder, dotted=False, zipped=False):
    for name, array in FILES.items():
        name = name.replace("-idx", ".idx") if dotted else name
        data = gzip.compress(idx(array)) if zipped else idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(data)
    return folder


def write_npz(folder, **changed):
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), FILES.values(), strict=True)) | changed
    np.savez_compressed(folder / "mnist.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_under_all_their_names(tmp_path, dotted, zipped):
    images = load_mnist(str(write(tmp_path, dotted, zipped)))
    np.testing.assert_array_equal(images.x_train, IMAGES[:5])
    np.testing.assert_array_equal(images.y_train, LABELS[:5])
    np.testing.assert_array_equal(images.x_test, IMAGES[5:])
    np.testing.assert_array_equal(images.y_test, LABELS[5:])
    assert images.y_train.dtype == np.int64


def test_the_archive_of_keras_is_read(tmp_path):
    images = load_mnist(write_npz(tmp_path))
    np.testing.assert_array_equal(images.x_test, IMAGES[5:])
    np.testing.assert_array_equal(images.y_train, LABELS[:5])


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_whole_of_fashion_mnist_as_debian_ships_it():
    images = load_mnist(DEBIAN)
    assert images.x_train.shape == (60000, 28, 28)
    assert images.x_test.shape == (10000, 28, 28)
    assert np.bincount(images.y_train).tolist() == [6000] * 10
    assert np.bincount(images.y_test).tolist() == [1000] * 10


def refused(folder):
    with pytest.raises(WrongInput) as caught:
        load_mnist(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    assert "none does not exist; give the folder of the MNIST files to --data-dir" in refused(tmp_path / "none")


def test_a_folder_without_the_files_is_refused(tmp_path):
    assert "has neither mnist.npz nor train-images-idx3-ubyte (or train-images.idx3-ubyte" in refused(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_each_missing_file_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    assert f"nor {name} (or" in refused(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 2, 4, 7, -1])
def test_each_truncated_file_is_named(tmp_path, name, keep):
    path = write(tmp_path) / name
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is truncated: " in refused(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_each_truncated_gzip_file_is_named(tmp_path, name):
    path = write(tmp_path, zipped=True) / f"{name}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path} is truncated: its gzip stream does not end" in refused(tmp_path)


def test_a_gzip_file_that_is_none_or_damaged_is_refused(tmp_path):
    path = write(tmp_path, zipped=True) / "train-images-idx3-ubyte.gz"
    sound = bytearray(path.read_bytes())
    path.write_bytes(idx(IMAGES[:5]))
    assert "is not a sound gzip file" in refused(tmp_path)
    sound[len(sound) // 2] ^= 0xFF
    path.write_bytes(sound)
    assert "is not a sound gzip file" in refused(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_each_wrong_magic_number_is_told(tmp_path, name):
    path = write(tmp_path) / name
    path.write_bytes(b"\x00\x00\x0d\x03" + path.read_bytes()[4:])
    needed = "0x00000803" if "images" in name else "0x00000801"
    assert f"{path} has the magic number 0x00000d03, but {needed} is needed" in refused(tmp_path)


def test_images_in_the_place_of_labels_are_refused(tmp_path):
    (write(tmp_path) / "train-labels-idx1-ubyte").write_bytes(idx(IMAGES[:5]))
    assert "has the magic number 0x00000803, but 0x00000801 is needed" in refused(tmp_path)


def test_a_file_that_is_too_long_is_refused(tmp_path):
    path = write(tmp_path) / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\x01")
    assert "is too long: 11 bytes instead of 10 for [2]" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("train-labels-idx1-ubyte", LABELS[:4], "holds 5 training images, but uint8 [4] labels"),
        ("t10k-images-idx3-ubyte", IMAGES[:3], "holds 3 test images, but uint8 [2] labels"),
        ("train-images-idx3-ubyte", IMAGES[:5, :20], "training images in {folder} are uint8 [5, 20, 28], but uint8"),
        ("t10k-labels-idx1-ubyte", np.array([3, 10], np.uint8), "test labels in {folder} go from 3 to 10, but 0 to 9"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, name, array, sentence):
    (write(tmp_path) / name).write_bytes(idx(array))
    assert sentence.format(folder=tmp_path) in refused(tmp_path)


def test_no_images_at_all_are_refused(tmp_path):
    (write(tmp_path) / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES[:0]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[:0]))
    assert "holds no test images" in refused(tmp_path)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"y_test": None}, "mnist.npz has no array y_test"),
        ({"y_train": LABELS[:3]}, "holds 5 training images, but uint8 [3] labels"),
        ({"x_train": IMAGES[:5] / 255}, "training images in {folder} are float64 [5, 28, 28], but uint8"),
        ({"y_train": np.array([{}] * 5)}, "mnist.npz is damaged or truncated"),
    ],
)
def test_an_archive_with_other_content_is_refused(tmp_path, changed, sentence):
    assert sentence.format(folder=tmp_path) in refused(write_npz(tmp_path, **changed))


@pytest.mark.parametrize("keep", [0, 3, 100, -30])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    path = write_npz(tmp_path) / "mnist.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is damaged or truncated" in refused(tmp_path)


def test_a_damaged_archive_is_refused(tmp_path):
    path = write_npz(tmp_path) / "mnist.npz"
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    assert f"{path} is damaged or truncated" in refused(tmp_path)
