"""The table of values in the README of charts/tfleet-nfs, made from the comments of values.yaml; run it to write it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "tfleet-nfs"
MARK = "<!-- The table is generated: python tests/charts_nfs/nfs_readme.py -->\n"


def rows(node: yaml.MappingNode, lines: list[str], above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields name, default and comment of each value; a value without a comment has that of the one before it."""
    comment = ""
    for key, value in node.value:
        found = lines[key.start_mark.line - 1].strip()
        comment = found[2:] if found.startswith("# ") else comment
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from rows(value, lines, f"{above}{key.value}.")
        else:
            text = yaml.safe_load(yaml.serialize(value))
            yield f"{above}{key.value}", json.dumps(text), comment


def table() -> str:
    """Returns the table as Markdown."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    found = rows(yaml.compose(text), text.splitlines())
    body = "".join(f"| `{name}` | `{default}` | {comment} |\n" for name, default, comment in found)
    return f"| value | default | what it is |\n| --- | --- | --- |\n{body}"


def readme() -> str:
    """Returns the README with its table anew."""
    text = (CHART / "README.md").read_text(encoding="utf-8")
    return text[: text.index(MARK) + len(MARK)] + "\n" + table()


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme(), encoding="utf-8")
