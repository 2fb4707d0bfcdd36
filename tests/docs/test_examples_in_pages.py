"""The tasks that the pages show are real tasks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.tf

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/your-own-task.md"])
def test_the_task_on_the_page_builds_and_learns(page, tmp_path):
    from tfleet.spec.job import JobSpec
    from tfleet.tasks.load import load_task

    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    code = next(block for block in blocks if "task = tfleet.Task(" in block)
    file = tmp_path / f"blobs_{Path(page).stem.replace('-', '_').lower()}.py"
    file.write_text(code, encoding="utf-8")
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    spec = JobSpec.parse({"task": f"{file}:task", "params": {"hidden_units": 64}})
    task = load_task(spec.task)
    model, data = task.build_model(spec), task.build_data(spec)
    assert model.layers[0].units == 64
    assert (len(data.train), len(data.test)) == (3000, 1000)
