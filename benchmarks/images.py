"""Builds the images and measures them: megabytes over the base, seconds to build.

Needs root and buildah. Each image is built from nothing (`--no-cache`; what it downloads counts), then once more with a
changed source file. The sizes are those of the files in the image, hard links counted once. The base is made before,
if it is not there: its time does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import HERE, write_result

ROOT = HERE.parent
BASE = "docker.io/library/python:3.11-slim-bookworm"
IMAGES = ("ps", "worker", "nfs")
CONTEXT = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", ".dockerignore", "src", "charts")
BUILDER = ROOT.parent / "shared" / "cluster" / "build-image"


def main() -> None:
    """Measures and writes `benchmarks/results/images.json`."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--builder", type=Path, default=BUILDER, help="called with TAG DOCKERFILE CONTEXT [options]")
    builder = parse.parse_args().builder
    with tempfile.TemporaryDirectory() as scratch:
        prepare(builder, Path(scratch))
        measured = [image_figures(builder, name) for name in IMAGES]
    base = megabytes(BASE)
    figures = {"kind": "images", "base": BASE, "base_mb": base, "images": measured}
    for row in measured:
        row["over_base_mb"] = round(row["mb"] - base, 1)
        print(json.dumps(row), flush=True)
    write_result("images", ["benchmarks/images.py"], figures)


def prepare(builder: Path, folder: Path) -> None:
    """Lets the builder make what it makes once: programs and base."""
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nLABEL measured=yes\n", encoding="utf-8")
    build(builder, "localhost/measured", folder / "Dockerfile", folder)
    remove("localhost/measured")


def image_figures(builder: Path, name: str) -> dict[str, Any]:
    """Returns size and build times of one image; its tag is one of its own and goes away again."""
    tag = f"localhost/measured-{name}"
    with copied_context() as context:
        dockerfile = context / "images" / name / "Dockerfile"
        cold = build(builder, tag, dockerfile, context, "--no-cache")
        with (context / "src" / "tfleet" / "__init__.py").open("a", encoding="utf-8") as source:
            source.write("# changed\n")
        warm = build(builder, tag, dockerfile, context)
    figures = {"name": f"tfleet-{name}", "mb": megabytes(tag), "cold_seconds": cold, "changed_source_seconds": warm}
    remove(tag)
    return figures


@contextmanager
def copied_context() -> Iterator[Path]:
    """A copy of what a builder gets, to be changed at will."""
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        for name in (*CONTEXT, "images"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, context / name)
        yield context


def build(builder: Path, tag: str, dockerfile: Path, context: Path, *options: str) -> float:
    """Builds an image; returns the seconds it took.

    Raises:
        RuntimeError: when the builder fails; with the end of what it said.
    """
    began = time.perf_counter()
    command = [str(builder), tag, str(dockerfile), str(context), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return round(time.perf_counter() - began, 1)


def megabytes(image: str) -> float:
    """Returns how much the files of an image have, in units of 10^6 bytes."""
    with mounted(image) as root:
        return round(file_bytes(root) / 1e6, 1)


def file_bytes(root: Path) -> int:
    """Returns the bytes of all files below a folder; a file with several names counts once, a link not at all."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            identity = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and identity not in seen:
                seen.add(identity)
                total += status.st_size
    return total


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The root of an image as a folder, to be read only."""
    container = output("buildah", "from", "--pull-never", image)
    try:
        yield Path(output("buildah", "mount", container))
    finally:
        subprocess.run(["buildah", "umount", container], check=True, capture_output=True)
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)


def remove(image: str) -> None:
    """Takes a tag away; layers that serve a later build stay."""
    subprocess.run(["buildah", "rmi", image], check=True, capture_output=True)


def output(*command: str) -> str:
    """Returns what a command prints, without the line's end."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
