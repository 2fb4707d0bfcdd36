"""What the Dockerfiles promise, read from their text; tests/e2e/test_images.py looks into the built images."""

from __future__ import annotations

import re
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "images"))

from requirements import requirements  # noqa: E402

BASE = "docker.io/library/python:3.11-slim-bookworm"
TFLEET, ALL = ("ps", "worker"), ("ps", "worker", "nfs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")

Instruction = tuple[str, str]


def instructions(image: str) -> list[Instruction]:
    """Returns (keyword, rest) of a Dockerfile, continued lines joined, comments left out."""
    text = (ROOT / "images" / image / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], " ".join(line.split()[1:])) for line in joined.splitlines()]


def last_stage(image: str) -> list[Instruction]:
    found = instructions(image)
    start = max(i for i, (keyword, _) in enumerate(found) if keyword == "FROM")
    return found[start:]


def first(found: list[Instruction], keyword: str) -> str:
    return next(rest for key, rest in found if key == keyword)


@pytest.mark.parametrize("image", ALL)
def test_every_stage_comes_from_one_base_or_from_an_earlier_stage(image):
    found = instructions(image)
    assert found[0] == ("ARG", f"BASE={BASE}")
    known = {"${BASE}"}
    for source in [rest for keyword, rest in found if keyword == "FROM"]:
        base, *name = re.split(r"\s+AS\s+", source)
        assert base in known
        known.update(name)
    assert sum(keyword == "FROM" for keyword, _ in found) >= 2
    assert first(last_stage(image), "FROM") == "${BASE}"


@pytest.mark.parametrize("image", ALL)
def test_the_last_stage_only_copies(image):
    # What a RUN would leave there (caches, lists, mount points of the builder) cannot be taken away again.
    assert not [rest for keyword, rest in last_stage(image) if keyword in ("RUN", "ADD")]


@pytest.mark.parametrize("image", TFLEET)
def test_tfleet_runs_as_an_ordinary_user_without_writing_bytecode(image):
    found = last_stage(image)
    assert first(found, "USER") == "1000:1000"
    for setting in ("PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "HOME=/tmp", "PATH=/opt/tfleet/bin:"):
        assert setting in first(found, "ENV")


@pytest.mark.parametrize("image", ALL)
def test_labels(image):
    found = last_stage(image)
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', first(found, "LABEL")))
    assert set(labels) == {"title", "description", "version", "source", "licenses"}
    assert labels["title"] == f"tfleet-{image}"
    assert labels["version"] == "${VERSION}"
    assert ("ARG", f"VERSION={PROJECT['version']}") in found
    if image in TFLEET:
        assert labels["licenses"] == PROJECT["license"]


@pytest.mark.parametrize("image", ALL)
def test_nothing_of_the_builder_is_named(image):
    text = (ROOT / "images" / image / "Dockerfile").read_text(encoding="utf-8").lower()
    for word in ("http:", "https:", "index-url", "index_url", "trusted-host", "proxy", "pip.conf", "token", "password"):
        assert word not in text


@pytest.mark.parametrize("image", TFLEET)
def test_dependencies_are_wheels_held_by_the_constraints_and_lie_below_the_source(image):
    found = instructions(image)
    install = next(rest for keyword, rest in found if keyword == "RUN" and "-r requirements.txt" in rest)
    assert "--only-binary :all:" in install
    assert "-c constraints.txt" in install
    assert "PIP_NO_CACHE_DIR=1" in first(found, "ENV")
    copies = [rest for keyword, rest in last_stage(image) if keyword == "COPY"]
    layers = [rest.split()[0] for rest in copies if rest.endswith(" /opt/tfleet")]
    assert layers == ["--from=dependencies", "--from=package"]
    before_the_source = found[: found.index(("COPY", "src src"))]
    assert install in [rest for _, rest in before_the_source]


@pytest.mark.parametrize("image", ALL)
def test_all_that_is_copied_is_there_and_reaches_the_builder(image):
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignore[1] == "*", "nothing is sent but what is named"
    named = [line[1:] for line in ignore if line.startswith("!")]
    for keyword, rest in instructions(image):
        if keyword == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, name) or source.startswith(f"{name}/") for name in named), source


def test_the_wheel_is_built_from_what_is_copied():
    copied = {
        source
        for keyword, rest in instructions("ps")
        if keyword == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "src"} <= copied
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"].get("force-include", {})
    assert all(any(Path(source).is_relative_to(each) for each in copied) for source in included)


def test_a_ps_needs_no_tensorflow():
    assert requirements(PROJECT, CONSTRAINTS) == PROJECT["dependencies"]
    assert not any(re.match("tensorflow|keras", line) for line in PROJECT["dependencies"])


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_tensorflow_has_the_version_that_ci_tests_under_either_name(extra):
    version = re.search(r"^tensorflow[-_]cpu==(\S+)$", CONSTRAINTS, re.MULTILINE)
    assert version
    found = [line for line in requirements(PROJECT, CONSTRAINTS, extra) if line.startswith("tensorflow")]
    assert found
    for line in found:
        assert f"=={version[1]}" in line
        assert ">=" not in line.partition(";")[0]
    original = [line for line in PROJECT["optional-dependencies"][extra] if line.startswith("tensorflow")]
    assert [line.partition(";")[2].strip() for line in found] == [line.partition(";")[2].strip() for line in original]
    assert ("[and-cuda]" in found[0]) == (extra == "gpu")


def test_an_unknown_extra_is_refused_by_name():
    with pytest.raises(SystemExit, match="EXTRA=rocm is not an extra"):
        requirements(PROJECT, CONSTRAINTS, "rocm")
