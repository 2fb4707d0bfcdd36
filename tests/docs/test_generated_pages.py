"""The documentation says what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("script", ["docs/scripts/write_reference.py", "benchmarks/write_measurements.py"])
def test_generated_pages_are_current(script):
    done = subprocess.run([sys.executable, str(ROOT / script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"])
def test_links_between_files_lead_somewhere(name):
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_pages_fetch_nothing_from_other_hosts():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^  font: false$", config, re.MULTILINE)
    for page in PAGES:
        assert not re.findall(
            r"!\[[^]]*\]\(https?:|<(?:img|script|link)\b[^>]*https?:", page.read_text(encoding="utf-8")
        )


def test_every_command_on_a_page_exists():
    from tfleet.cli.main import COMMANDS

    used = set()
    for page in [ROOT / "README.md", *PAGES]:
        blocks = re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        used |= {m for block in blocks for m in re.findall(r"^(?:\.venv/bin/)?tfleet ([a-z]+)", block, re.MULTILINE)}
    assert used, "no page shows a command"
    assert used <= set(COMMANDS)


def test_every_flag_on_a_page_exists():
    from typer.main import get_group

    from tfleet.cli.main import COMMANDS, _application

    known = {}
    for name in COMMANDS:
        parameters = get_group(_application([name])).commands[name].params
        known[name] = {flag for p in parameters for flag in (*p.opts, *p.secondary_opts)} | {"--help"}
    for page in [ROOT / "README.md", *PAGES]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, line in re.findall(r"tfleet ([a-z]+) ([^`\n]*)", text):
            ours = re.split(r" -- | > | \| |;|\)", line)[0]
            unknown = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", f" {ours}")) - known.get(name, set())
            assert name not in known or not unknown, f"{page.name}: tfleet {name} {line}"
