from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tfleet.backends import doctor


def test_versions_of_python():
    assert doctor.python((3, 11, 0)).ok
    assert not doctor.python((3, 10, 9)).ok


@pytest.mark.parametrize(
    ("version", "ok"), [("2.19.0", True), ("3.0.0", True), ("2.18.1", False), ("2.21.0-rc1", True), ("", False)]
)
def test_versions_of_tensorflow(version, ok):
    finding = doctor.library("tensorflow", version, "")
    assert finding.ok == ok
    assert bool(finding.advice) != ok


def test_the_least_versions_are_those_that_the_package_asks_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    asked = " ".join(project["optional-dependencies"]["cpu"])
    for name, least in doctor.LEAST_VERSIONS.items():
        assert re.search(rf"\b{name}>={least[0]}\.{least[1]}\b", asked)
    assert project["requires-python"] == ">=" + ".".join(map(str, doctor.LEAST_PYTHON))


def test_a_library_is_imported_elsewhere_and_its_own_error_is_told(monkeypatch):
    assert doctor.try_import("no_such_library") == ("", "ModuleNotFoundError: No module named 'no_such_library'")
    monkeypatch.setattr(doctor, "IMPORT", "import json\nprint(json.dumps({'version': '9.9', 'gpus': 2}))")
    assert doctor.try_import("x") == ("9.9", ", 2 GPU(s)")


def test_memory_says_how_many_workers_fit():
    assert doctor.memory(4 * 10**9).ok
    assert doctor.memory(-1).ok
    little = doctor.memory(700 * 10**6)
    assert (little.ok, little.advice) == (False, "end other programs, or start at most 1 worker(s)")
    assert "add memory" in doctor.memory(1).advice


def test_memory_of_a_container_is_what_its_limit_leaves(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert doctor.available_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert doctor.available_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert doctor.available_memory(meminfo, tmp_path) == 4000
    assert doctor.available_memory(tmp_path / "none", tmp_path) == -1


def test_one_core_is_a_warning_only():
    assert doctor.cores(2).ok
    assert (doctor.cores(1).ok, doctor.cores(1).required) == (False, False)


def test_another_backend_of_keras_and_proxies_are_warnings():
    assert doctor.keras_backend({}).ok
    assert doctor.keras_backend({"KERAS_BACKEND": "tensorflow"}).ok
    jax = doctor.keras_backend({"KERAS_BACKEND": "jax"})
    assert (jax.ok, jax.required) == (False, False)
    assert doctor.proxies({"http_proxy": ""}).ok
    proxy = doctor.proxies({"http_proxy": "x"})
    assert (proxy.ok, proxy.required, proxy.detail) == (False, False, "set: http_proxy")


def test_limits_of_files_and_disk(tmp_path):
    assert doctor.open_files(1024).ok
    assert doctor.open_files(-1).ok
    assert "ulimit -n" in doctor.open_files(64).advice
    assert doctor.disk(10**10, tmp_path).ok
    assert not doctor.disk(10**8, tmp_path).ok


def test_a_folder_that_cannot_be_written_is_found(monkeypatch, tmp_path):
    def full(**_):
        raise OSError(28, "No space left on device")

    assert doctor.run_directory(tmp_path).ok
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
    assert "No space left" in doctor.run_directory(tmp_path).detail


def test_an_examination_of_this_machine_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "try_import", lambda name: ("99.0", ""))
    findings = doctor.examine(tmp_path / "a" / "b", {})
    assert [f.name for f in findings if f.required and not f.ok and f.name != "memory"] == []
    assert len({f.name for f in findings}) == len(findings) == 13
    assert list(tmp_path.iterdir()) == []
