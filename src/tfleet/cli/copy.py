"""`tfleet copy`: a run directory from a job's volume to this machine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tfleet.api.request import RUNS
from tfleet.cli.output import Format, FormatOption, print_json, print_line, tell
from tfleet.spec.errors import WrongInput, nearest


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary} Every other command works on the copy.")(_copy)


def _copy(
    handle: Annotated[str, typer.Argument(metavar="HANDLE", help="k8s://context/namespace/name, as train prints it.")],
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A new folder. Default: runs/ and the job's name.", show_default=False)
    ] = "",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PART", help="export, summaries, checkpoints or logs; may be repeated."),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    from tfleet.api.places import shown
    from tfleet.backends.kubernetes import copying
    from tfleet.backends.kubernetes.handle import Handle
    from tfleet.backends.kubernetes.job import open_job

    at = Handle.parse(handle)
    for part in only or ():
        if part not in copying.PARTS:
            allowed = ", ".join(copying.PARTS)
            raise WrongInput(f"unknown part '{part}'{nearest(part, copying.PARTS)}; --only may be {allowed}")
    target = Path(folder).expanduser() if folder else RUNS / at.release
    with contextlib.closing(open_job(handle)) as job, _progress() as progress:
        result = copying.copy_run(job, target.absolute(), only or (), tell, progress)
    if output is Format.JSON:
        print_json({"handle": str(at), "run_dir": str(target.absolute()), **result})
    else:
        print_line(f"copied {result['files']:,} files, {size(result['bytes'])}, to {shown(target.absolute())}")


def size(count: int) -> str:
    """Writes a number of bytes as people read it."""
    value, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count:,} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yields what shows the progress: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
