"""`tfleet train`: start a job, on this machine or on Kubernetes, and follow it."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from tfleet.api.names import Name
from tfleet.api.places import KubernetesPlace, place_at
from tfleet.api.progress import Display, Printer
from tfleet.api.request import TIME_PLACEHOLDER, Request
from tfleet.api.run import local_backend, plan, stamp, start_and_follow, task_name
from tfleet.backends.base import Backend, Plan
from tfleet.cli.flags import job_flags, params_of
from tfleet.cli.output import Format, On, print_json, print_line, tell
from tfleet.spec.errors import ExitCode, WrongInput

PANEL = "Kubernetes"


class TrainFormat(StrEnum):
    """How `train` answers."""

    TEXT = "text"
    JSON = "json"
    TFJOB = "tfjob"


def command(app: typer.Typer, name: str, summary: str) -> None:
    """Adds the command to `app`."""
    app.command(name, help=f"{summary}\n\nExample: tfleet train mnist --steps 2000 --param hidden_units=100")(
        job_flags(_train)
    )


def _text(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, show_default=False, rich_help_panel=PANEL)


def _train(
    given: dict[str, Any],
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="mnist, module:object or path/to/file.py:object.", show_default=False),
    ] = "",
    file: Annotated[
        str, typer.Option("-f", "--file", metavar="JOB.YAML", help="Job file; flags override it.", show_default=False)
    ] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the task; may be repeated."),
    ] = None,
    run_dir: Annotated[
        str,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Default: a new folder below runs/; on kubernetes a folder of the release's name on the volume.",
            show_default=False,
        ),
    ] = "",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the newest commit in --run-dir; on kubernetes, of the volume."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved job and what would be started; start nothing.")
    ] = False,
    on: Annotated[On, typer.Option("--on", help="Where the job runs.", rich_help_panel=PANEL)] = On.LOCAL,
    context: Annotated[str, _text("--context", "NAME", "Context of the kubeconfig. Default: the current one.")] = "",
    namespace: Annotated[str, _text("--namespace", "NAME", "Default: the context's.")] = "",
    name: Annotated[str, _text("--name", "NAME", "Name of the Helm release. Default: the task's and the time.")] = "",
    values: Annotated[
        list[str] | None, _text("--values", "FILE", "Values of the chart (YAML); may be repeated, flags override it.")
    ] = None,
    settings: Annotated[
        list[str] | None, _text("--set", "KEY=VALUE", "One value of the chart; may be repeated, overrides --values.")
    ] = None,
    task_file: Annotated[
        str, _text("--task-file", "FILE", "Python file that is shipped with the job; TASK is its name.py:object.")
    ] = "",
    remove: Annotated[
        bool, typer.Option("--rm", help="Uninstall the job when it, or this command, ends.", rich_help_panel=PANEL)
    ] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Print the job's handle and end once it has done its first step, on kubernetes once it is installed; "
            "it goes on, and 'tfleet attach' follows it.",
        ),
    ] = False,
    output: Annotated[
        TrainFormat,
        typer.Option("-o", "--output", help="Text for people, one JSON object, or with --dry-run a TFJob of Kubeflow."),
    ] = TrainFormat.TEXT,
) -> None:
    request = Request(
        task=task_name(task),
        given=given,
        params=params_of(param or []),
        file=file,
        run_dir=run_dir,
        resume=resume,
        spell=_flag,
    )
    when = TIME_PLACEHOLDER if dry_run else stamp()
    flags: dict[str, Any] = {
        "--context": context,
        "--namespace": namespace,
        "--name": name,
        "--values": values,
        "--set": settings,
        "--task-file": task_file,
        "--rm": remove,
        "--detach": detach,
    }
    _refuse_idle(on, flags, output, dry_run)
    job_plan: Plan
    backend: Backend
    if on is On.LOCAL:
        backend = local_backend()
        job_plan = plan(request, backend, when)
    else:
        from tfleet.api.remote import Target, plan_remote

        target = Target(context, namespace, name, tuple(values or ()), tuple(settings or ()), task_file, remove)
        job_plan, backend = plan_remote(request, target, when)
        if output is TrainFormat.TFJOB:
            sys.stdout.write(backend.tfjob(job_plan))
            return
    if dry_run:
        _print_plan(job_plan, Format(output))
        return
    if detach:
        _detached(job_plan, backend, on, Format(output))
    else:
        _followed(job_plan, backend, Format(output), remove)


def _refuse_idle(on: On, flags: dict[str, Any], output: TrainFormat, dry_run: bool) -> None:
    """Refuses what would do nothing.

    Raises:
        WrongInput: names the flag.
    """
    used = [flag for flag, value in flags.items() if value and flag != "--detach"]
    if on is On.LOCAL and used:
        raise WrongInput(f"{used[0]} does nothing for a local job; add --on kubernetes or leave {used[0]} out")
    if output is TrainFormat.TFJOB and not (dry_run and on is On.KUBERNETES):
        raise WrongInput("-o tfjob prints what Kubeflow would run and starts nothing; add --on kubernetes --dry-run")
    if flags["--rm"] and flags["--detach"]:
        raise WrongInput("--rm uninstalls the job when this command ends, and --detach ends it at once; give only one")


def _flag(name: Name) -> str:
    return name.flag


def _print_plan(job_plan: Plan, output: Format) -> None:
    if output is Format.JSON:
        print_json(job_plan.to_json())
    else:
        sys.stdout.write(job_plan.text())


def _detached(job_plan: Plan, backend: Backend, on: On, output: Format) -> None:
    place = place_at(job_plan.handle, str(job_plan.run_dir))
    if on is On.KUBERNETES:
        backend.start(job_plan).close()
    else:
        from tfleet.api.detached import start_detached
        from tfleet.cli.summary import print_end

        outcome = start_detached(job_plan)
        if outcome.code != ExitCode.DONE:
            print_end(place, outcome, output)
    if output is Format.JSON:
        print_json(place.identity())
    else:
        print_line(job_plan.handle)


def _followed(job_plan: Plan, backend: Backend, output: Format, remove: bool) -> None:
    from tfleet.cli.summary import print_end, print_going_on

    outcome = start_and_follow(job_plan, backend, lambda: _display(job_plan, output))
    place = place_at(job_plan.handle, str(job_plan.run_dir), remove)
    if outcome.detached and isinstance(place, KubernetesPlace) and output is Format.TEXT:
        print_going_on(place)
    if output is Format.JSON and outcome.detached:
        outcome = replace(outcome, status={**outcome.status, "detached": True})
    print_end(place, outcome, output)


def _display(job_plan: Plan, output: Format) -> Display:
    from tfleet.cli.live import Live, opening

    if output is Format.TEXT and sys.stdout.isatty():
        return Live(opening(job_plan))
    printer = Printer(tell if output is Format.JSON else print_line)
    for line in opening(job_plan):
        printer.say(line)
    return printer
