"""Prints what an image installs besides tfleet itself: `requirements.py pyproject.toml constraints.txt [EXTRA]`.

The dependencies are a layer of their own, below tfleet: a change of the source leaves them as they are. TensorFlow has
two names (`tensorflow-cpu`, `tensorflow`) and one version; constraints.txt knows the one that CI installs, and the
other is held to the same version here.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], constraints: str, extra: str = "") -> list[str]:
    """Returns requirements as pip reads them, one a line, and the constraint on TensorFlow.

    Args:
        project: the table `[project]` of pyproject.toml.
        constraints: the text of constraints.txt.
        extra: name of an optional group, or "" for none.

    Raises:
        SystemExit: when there is no such extra.
    """
    lines = list(project["dependencies"])
    if extra:
        extras = project["optional-dependencies"]
        if extra not in extras:
            raise SystemExit(f"EXTRA={extra} is not an extra of pyproject.toml; it has {', '.join(extras)}")
        lines += extras[extra]
    version = re.search(r"^tensorflow[-_]cpu==(\S+)$", constraints, re.MULTILINE)
    if extra and version:
        lines = [
            re.sub(r"^(tensorflow(?:-cpu)?(?:\[[^\]]*\])?)[^;]*", rf"\1=={version[1]} ", line).strip() for line in lines
        ]
    return lines


if __name__ == "__main__":
    pyproject, constraints, *extra = sys.argv[1:]
    table = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]
    print("\n".join(requirements(table, Path(constraints).read_text(encoding="utf-8"), *extra)))
