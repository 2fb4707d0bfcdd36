"""What the benchmark of the images counts, and how its figures reach the page."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import write_measurements

import images


def test_a_file_counts_once_and_a_link_not_at_all(tmp_path):
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "file"
    file.write_bytes(bytes(1000))
    (tmp_path / "second-name").hardlink_to(file)
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "other").write_bytes(bytes(7))
    assert images.file_bytes(tmp_path) == 1007


def test_the_copied_context_has_what_the_builder_gets_and_no_bytecode():
    with images.copied_context() as context:
        assert (context / "images" / "worker" / "Dockerfile").exists()
        assert (context / "src" / "tfleet" / "__init__.py").exists()
        assert (context / ".dockerignore").exists()
        assert not list(context.rglob("__pycache__"))
    assert not context.exists()


def test_the_page_has_a_row_for_each_image():
    result = {
        "name": "images",
        "kind": "images",
        "base": "docker.io/library/python:3.11-slim-bookworm",
        "base_mb": 199.4,
        "images": [
            {
                "name": "tfleet-ps",
                "mb": 286.4,
                "over_base_mb": 87.0,
                "cold_seconds": 20.2,
                "changed_source_seconds": 9.7,
            }
        ],
        "date": "2026-11-22",
        "machine": {"cores": 2, "memory_gib": 24},
        "load_at_start": 0.1,
        "versions": {"python": "3.11.7"},
        "command": ["python", "benchmarks/images.py"],
    }
    text = write_measurements.built_images_section(result)
    assert "The base, `python:3.11-slim-bookworm`, has 199 MB." in text
    assert "| `tfleet-ps` | 286 | 87 | 20 | 10 |" in text
