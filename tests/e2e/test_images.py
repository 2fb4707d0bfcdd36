"""The built images: what is in them, what is not, and that they run as an ordinary user on a read-only root.

The files are looked at where buildah mounts them; programs run in a chroot with nothing to write to but /tmp.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster import IMAGES, ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from images import BASE, megabytes, mounted, output

LIMIT_OF_PS = 100
"""Megabytes over the base that a ps may have."""
COMPILERS = re.compile(r"/(gcc|g\+\+|cc|c\+\+|cc1|clang|ld|as|make)(-[0-9.]+)?$")
# Runs "$@" in the root "$1": own mounts and network, nothing writable but /tmp.
ENTER = """
root=$1; shift
mount --make-rprivate / && mount --bind "$root" /mnt && mount -o remount,bind,ro /mnt
mount -t proc proc /mnt/proc && mount --bind /dev /mnt/dev && mount -t tmpfs -o mode=1777 tmpfs /mnt/tmp
exec /usr/sbin/chroot --userspec=1000:1000 /mnt "$@"
"""


@dataclass(frozen=True)
class Image:
    """One image: its configuration and its files."""

    config: dict[str, Any]
    root: Path

    def files(self) -> list[str]:
        """Paths of all files and links, from the image's root."""
        return [f"/{path.relative_to(self.root)}" for path in self.root.rglob("*") if not path.is_dir()]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as a pod would: the image's environment and user, a read-only root, no network."""
        env = dict(setting.split("=", 1) for setting in self.config["Env"])
        enter = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-ec", ENTER, "sh", str(self.root)]
        return subprocess.run([*enter, *command], env=env, capture_output=True, text=True, timeout=300)

    def says(self, *command: str) -> str:
        """Runs a command that must succeed; returns what it prints."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def built(images: None) -> Iterator[dict[str, Image]]:
    """Both images, mounted."""
    with ExitStack() as stack:
        found = {}
        for role, name in IMAGES.items():
            described = json.loads(output("buildah", "inspect", "--type", "image", name))
            found[role] = Image(described["OCIv1"]["config"], stack.enter_context(mounted(name)))
        yield found


def test_a_ps_is_small_and_has_no_tensorflow(built: dict[str, Image]) -> None:
    assert megabytes(IMAGES["ps"]) - megabytes(BASE) <= LIMIT_OF_PS
    packages = {path.name for path in built["ps"].root.glob("opt/tfleet/lib/python3.*/site-packages/*")}
    assert {"numpy", "pydantic", "tfleet"} <= packages
    assert not {"tensorflow", "keras", "tensorboard", "pip"} & packages


@pytest.mark.parametrize("role", IMAGES)
def test_user_and_labels(built: dict[str, Image], role: str) -> None:
    config = built[role].config
    assert config["User"] == "1000:1000"
    labels = {name.rpartition(".")[2]: text for name, text in config["Labels"].items() if "opencontainers" in name}
    assert labels["title"] == f"tfleet-{role}"
    assert labels["version"] == IMAGES[role].rpartition(":")[2]
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"]
    assert "source" in labels


@pytest.mark.parametrize("role", IMAGES)
def test_nothing_of_the_build_is_left(built: dict[str, Image], role: str) -> None:
    files = built[role].files()
    assert "/opt/tfleet/bin/tfleet" in files
    assert not [path for path in files if COMPILERS.search(path)]
    assert not [path for path in files if path.endswith(("/pip.conf", "/.netrc", "/.pypirc"))]
    assert not [path for path in files if path.startswith(("/root/.cache", "/build", "/package"))]
    # pip notes where a package came from; an index's address, or this machine's, is nobody's business.
    notes = [path for path in files if path.endswith(("/direct_url.json", "/METADATA", "/RECORD"))]
    names = [(built[role].root / path[1:]).read_text(errors="replace") for path in notes if "/tfleet-" in path]
    assert not any("pypi" in text or "simple/" in text for text in names)


@pytest.mark.parametrize("role", IMAGES)
def test_all_bytecode_is_there_and_is_not_compared_with_its_source(built: dict[str, Image], role: str) -> None:
    package = next(built[role].root.glob("opt/tfleet/lib/python3.*/site-packages/tfleet"))
    sources = set(package.rglob("*.py"))
    assert sources
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        # PEP 552: flags 0b01 is a hash that is not checked, so that no copy of the files makes bytecode stale.
        assert compiled.read_bytes()[4:8] == b"\x01\0\0\0", compiled
    code = "import sys, tfleet.server.__main__ as m; print(m.__cached__, m.__file__)"
    cached, source = built[role].says("python", "-c", code).split()
    assert (built[role].root / cached[1:]).exists()
    assert source.startswith("/opt/tfleet/lib/")


@pytest.mark.parametrize("role", IMAGES)
@pytest.mark.parametrize("module", ["tfleet.backends.pod", "tfleet.server", "tfleet.backends.finisher"])
def test_the_programs_of_pods_run_as_an_ordinary_user(built: dict[str, Image], role: str, module: str) -> None:
    assert built[role].says("id", "-u") == "1000"
    assert "usage:" in built[role].says("python", "-m", module, "--help")


@pytest.mark.parametrize("role", IMAGES)
def test_the_root_cannot_be_written(built: dict[str, Image], role: str) -> None:
    for path in ("/opt/tfleet/x", "/x", "/etc/x"):
        assert built[role].run("touch", path).returncode != 0
    built[role].says("touch", "/tmp/x")


def test_a_worker_has_its_tools(built: dict[str, Image]) -> None:
    worker = built["worker"]
    assert "train" in worker.says("tfleet", "--help")
    constraints = (ROOT / "constraints.txt").read_text()
    expected = dict(re.findall(r"^(keras|tensorflow_cpu|tensorboard)==(\S+)$", constraints, re.MULTILINE))
    code = "import keras, tensorflow; print(keras.__version__, tensorflow.__version__)"
    assert worker.says("python", "-c", code).splitlines()[-1].split() == [
        expected["keras"],
        expected["tensorflow_cpu"],
    ]
    assert worker.says("tensorboard", "--version").splitlines()[-1] == expected["tensorboard"]


def test_a_worker_saves_and_loads_models_in_both_formats(built: dict[str, Image]) -> None:
    # What was left out (headers, libclang, tests of packages) is not needed for what workers and serving do.
    code = """
import keras, numpy, tensorflow as tf
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy", jit_compile=True)
x = numpy.ones((8, 4), "float32")
model.fit(x, numpy.zeros(8), verbose=0)
model.save("/tmp/model.keras")
model.export("/tmp/saved", verbose=False)
expected = model.predict(x, verbose=0)
numpy.testing.assert_allclose(keras.models.load_model("/tmp/model.keras").predict(x, verbose=0), expected, rtol=1e-5)
loaded = tf.saved_model.load("/tmp/saved")
numpy.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-5)
with tf.summary.create_file_writer("/tmp/events").as_default():
    tf.summary.scalar("loss", 1.0, step=1)
print("good")
"""
    assert built["worker"].says("python", "-c", code).splitlines()[-1] == "good"
