"""`tfleet doctor`: is this machine fit, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tfleet.cli.output import Format, FormatOption, print_json
from tfleet.spec.errors import ExitCode

if TYPE_CHECKING:
    from tfleet.backends.doctor import Finding


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary} Exit code 1: tfleet cannot train here as it is.")(_doctor)


def _doctor(output: FormatOption = Format.TEXT) -> int:
    from tfleet.backends.doctor import examine

    findings = examine()
    fit = all(f.ok for f in findings if f.required)
    if output is Format.JSON:
        print_json({"fit": fit, "findings": [f.to_json() for f in findings]})
    else:
        _print(findings, fit)
    return int(ExitCode.DONE if fit else ExitCode.FAILED)


def _print(findings: Sequence[Finding], fit: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = max(len(f.name) for f in findings) + 2
    for finding in findings:
        mark, style = _mark(finding)
        line = Text(f"{mark} ", style=style).append(finding.name.ljust(width)).append(finding.detail, style="dim")
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"  {' ' * width}{finding.advice}", style=style), soft_wrap=True)
    if fit:
        end = Text("\nThis machine is fit. Start with: tfleet train mnist --workers 2 --ps 2", style="green")
    else:
        end = Text(
            "\nThis machine is not fit yet: do what is said at each ✗, then run 'tfleet doctor' again.", style="red"
        )
    console.print(end, soft_wrap=True)


def _mark(finding: Finding) -> tuple[str, str]:
    if finding.ok:
        return "✓", "green"
    return ("✗", "red") if finding.required else ("!", "yellow")
