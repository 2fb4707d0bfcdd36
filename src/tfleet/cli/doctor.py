"""`tfleet doctor`: is this machine, or a cluster, fit, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tfleet.cli.output import Format, FormatOption, On, print_json
from tfleet.spec.errors import ExitCode, WrongInput

if TYPE_CHECKING:
    from tfleet.backends.doctor import Finding


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary} Exit code 1: tfleet cannot train here as it is.")(_doctor)


def _doctor(
    on: Annotated[On, typer.Option("--on", help="What is examined: this machine, or a cluster.")] = On.LOCAL,
    context: Annotated[
        str, typer.Option("--context", metavar="NAME", help="Of the kubeconfig. Default: the current one.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAME", help="Default: the context's.")] = "",
    output: FormatOption = Format.TEXT,
) -> int:
    if on is On.KUBERNETES:
        from tfleet.backends.kubernetes.doctor import examine as examine_cluster

        findings = examine_cluster(context, namespace)
    else:
        from tfleet.backends.doctor import examine

        if context or namespace:
            flag = "--context" if context else "--namespace"
            raise WrongInput(f"{flag} does nothing for this machine; add --on kubernetes or leave {flag} out")
        findings = examine()
    fit = all(f.ok for f in findings if f.required)
    if output is Format.JSON:
        print_json({"fit": fit, "findings": [f.to_json() for f in findings]})
    else:
        _print(findings, fit, on)
    return int(ExitCode.DONE if fit else ExitCode.FAILED)


def _print(findings: Sequence[Finding], fit: bool, on: On) -> None:
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
    what, flags = ("The cluster", " --on kubernetes") if on is On.KUBERNETES else ("This machine", "")
    if fit:
        end = Text(f"\n{what} is fit. Start with: tfleet train mnist --workers 2 --ps 2{flags}", style="green")
    else:
        end = Text(
            f"\n{what} is not fit yet: do what is said at each ✗, then run 'tfleet doctor{flags}' again.", style="red"
        )
    console.print(end, soft_wrap=True)


def _mark(finding: Finding) -> tuple[str, str]:
    if finding.ok:
        return "✓", "green"
    return ("✗", "red") if finding.required else ("!", "yellow")
