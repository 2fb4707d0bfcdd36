"""Turns a captured terminal (`tmux capture-pane -e -p`) into an SVG for the docs.

Usage: python tools/terminal_picture.py CAPTURE TITLE PICTURE
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def picture(captured: str, title: str) -> str:
    """Returns an SVG of the captured screen, without its empty end and without fonts from elsewhere."""
    text = Text.from_ansi(captured.rstrip())
    width = max(line.cell_len for line in text.split())
    console = Console(record=True, width=width + 2, file=io.StringIO(), force_terminal=True)
    console.print(text)
    svg = console.export_svg(title=title)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "monospace")


if __name__ == "__main__":
    source, heading, target = sys.argv[1:]
    Path(target).write_text(picture(Path(source).read_text(encoding="utf-8"), heading), encoding="utf-8")
