"""The pages on Kubernetes show commands and values that the chart takes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "kubernetes").glob("*.md"))
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"helm (install|template) \S+ charts/tfleet( |$)")
REFUSED_ON_PURPOSE = ("worker.limit.memory=125Mi", "job.batch_size=20")
HOLDERS = {"$REPOSITORY": "registry.example", "$REGISTRY": "registry.example", "$SERVER": "10.0.0.5"}

HELM = shutil.which("helm") or shutil.which("helm", path=str(Path.home() / ".cache/local-cluster/bin"))

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is neither on PATH nor in ~/.cache/local-cluster/bin")


def commands() -> list[str]:
    """Every command on the pages that gives values to the chart for training."""
    lines = []
    for page in [ROOT / "README.md", *PAGES]:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            lines += block.replace("\\\n", " ").splitlines()
    return sorted({" ".join(line.split()) for line in lines if SHOWN.match(line)})


def render(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    for holder, text in HOLDERS.items():
        command = command.replace(holder, text)
    words = shlex.split(re.split(r" [|>] ", command)[0].replace("helm install", "helm template"))
    words = [str(folder / word) if word == "digits.yaml" else word for word in words]
    words = [word.replace("=blobs.py", f"={folder / 'blobs.py'}") if "content" in word else word for word in words]
    return helm(*words[1:])


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the commands read: the page's own values, and a task."""
    page = (ROOT / "docs" / "kubernetes" / "your-own-image.md").read_text(encoding="utf-8")
    values = next(block for block in BLOCK.findall(page) if block.startswith("# digits.yaml"))
    (tmp_path / "digits.yaml").write_text(values, encoding="utf-8")
    (tmp_path / "blobs.py").write_text("task = None\n", encoding="utf-8")
    return tmp_path


def test_pages_show_commands_of_helm():
    assert len(commands()) >= 15


@pytest.mark.parametrize("command", commands())
def test_the_chart_takes_every_command_on_a_page(command, folder):
    done = render(command, folder)
    if any(words in command for words in REFUSED_ON_PURPOSE):
        assert done.returncode != 0
        said = re.search(r"checks\.yaml:\d+:\d+\): (.*)", done.stderr)
        assert said, done.stderr
        assert said[1] in (ROOT / "docs" / "kubernetes" / "coming-from-2018-charts.md").read_text(encoding="utf-8")
    else:
        assert done.returncode == 0, done.stderr
        assert ("kind: Pod" if "tool.kind" in command else "kind: ConfigMap") in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_chart_takes_every_values_file_on_a_page(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
        for part in re.split(r"^# (?:then|now)\n", block, flags=re.MULTILINE):
            if not yaml.safe_load(part):
                continue
            file = tmp_path / f"{number}.yaml"
            file.write_text(part, encoding="utf-8")
            done = helm("template", "digits", "charts/tfleet", "--values", str(file))
            assert done.returncode == 0, (part, done.stderr)
