"""The console script: finds the command, runs it, and turns an error into one sentence and an exit code.

Commands are loaded when they are called: the table below is all that `tfleet --help` needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from tfleet import __version__
from tfleet.spec.errors import ExitCode, TfleetError, WrongInput, nearest
from tfleet.spec.importing import quick_imports
from tfleet.spec.leaving import leave

COMMANDS = {
    "train": "Train a task with workers and parameter servers, on this machine or on Kubernetes.",
    "eval": "Evaluate a run's model on the held-out data.",
    "export": "Export a run's model for serving.",
    "tensorboard": "Show a run's curves, histograms and images in the browser.",
    "status": "Show what a job is doing, or how it ended.",
    "logs": "Print the logs of a job's replicas.",
    "stop": "End a job early: it commits, evaluates and exports.",
    "scale": "Give a running job more workers, or fewer.",
    "join": "Start one worker more by hand, on this machine or another one.",
    "attach": "Follow a running job until it ends, as train does.",
    "copy": "Bring the results of a job on Kubernetes to this machine.",
    "doctor": "Check whether this machine, or a cluster, is fit for tfleet, and say what to do.",
    "launch": "Run your own TensorFlow script as workers and parameter servers.",
}
"""Every command and its one-line help; each is `command(app, name, help)` in `tfleet.cli.<name>`."""

MODULES = {"eval": "evaluate"}
"""Modules that cannot have the name of their command: Python has taken it."""

# Typer keeps click's base class of wrong usage to itself; it is this ancestor of the error it does export.
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `tfleet` with `arguments` (by default the process's) and exits with the code of the command."""
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        code = _refuse(f"the output could not be written: {error.strerror}; make room for it", code or ExitCode.FAILED)
    leave(code)


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; the only place where an error becomes text."""
    try:
        return int(_application(arguments)(arguments or ["--help"], prog_name="tfleet", standalone_mode=False) or 0)
    except TfleetError as error:
        return _refuse(str(error), error.exit_code)
    except _UsageError as error:
        return _refuse(_usage_sentence(error, arguments), ExitCode.WRONG_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return int(ExitCode.INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # Whoever read the output has gone, as in `tfleet logs RUN | head` (Typer makes that a SystemExit): nothing
        # went wrong, and Python's own flush at exit must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.DONE)


def _application(arguments: Sequence[str]) -> Callable[..., Any]:
    """Makes the command line with the named command loaded, and only the help line of the others."""
    name = next((a for a in arguments if not a.startswith("-")), "")
    if name and arguments[0] == name and name not in COMMANDS:
        raise WrongInput(f"unknown command '{name}'{nearest(name, COMMANDS)}; allowed: {', '.join(COMMANDS)}")
    app = typer.Typer(
        help="Train Keras models with parameter servers and workers, on one machine or on Kubernetes.",
        epilog="Start with: tfleet train mnist --workers 2 --ps 2 --steps 2000",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_about)
    everything = "_TFLEET_COMPLETE" in os.environ
    for command, summary in COMMANDS.items():
        if everything or command == name:
            with quick_imports():
                module = importlib.import_module(f"tfleet.cli.{MODULES.get(command, command)}")
            module.command(app, command, summary)
        else:
            app.command(command, help=summary)(_not_loaded)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tfleet {__version__}")
        raise typer.Exit


def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def _not_loaded() -> None:
    """Stands for a command that is listed in the help but was not called."""
    raise AssertionError("a command was called that was not loaded")


def _refuse(sentence: str, code: int) -> int:
    print(f"tfleet: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    return int(code)


def _usage_sentence(error: Exception, arguments: Sequence[str]) -> str:
    """Says in one sentence what is wrong with the command line, with the nearest option's name."""
    context: Any = getattr(error, "ctx", None)
    unknown = str(getattr(error, "option_name", ""))
    if type(error).__name__ == "NoSuchOption" and context:
        parameters = context.command.params
        options = [o for p in parameters for o in (*p.opts, *p.secondary_opts) if o.startswith("-")]
        message = f"unknown option {unknown}{nearest(unknown, options)}"
    else:
        said = getattr(error, "format_message", None)
        message = (said() if said else str(error)).strip().rstrip(".").replace("Value error, ", "")
        message = message[:1].lower() + message[1:]
    command = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
    return f"{message}; 'tfleet{command} --help' lists what is allowed"
