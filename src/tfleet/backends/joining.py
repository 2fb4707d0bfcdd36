"""What `tfleet join` finds out before it becomes a worker: where ps 0 is, the token, and the run directory.

All of it is looked at by a small process without TensorFlow, so that what is wrong is said at once, and the job never
hears of it. The job's own description is read from the run directory, which every worker needs anyway: for the commits
that it evaluates and exports, and for its summaries.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfleet.backends.kubernetes.handle import Handle, is_handle
from tfleet.backends.replicas import tuning
from tfleet.server import control
from tfleet.spec.environment import TLS_VARIABLES, TOKEN, TOKEN_FILE, VARIABLES, is_address
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import OVER, RunDir
from tfleet.tasks.names import check_name
from tfleet.version import __version__
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token
from tfleet.wire.client import ConnectionLost
from tfleet.wire.frames import ProtocolError
from tfleet.wire.secure import tls_of, tls_of_environment

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

AGAIN = 0.5
"""Seconds between two questions to a job that is starting."""
FORMS = "give HOST:PORT, unix:@name or a run directory"


@dataclass(frozen=True)
class Seat:
    """The place of a guest in a job.

    Attributes:
        address: of ps 0.
        run: the run directory, as this machine sees it.
        spec: the job.
    """

    address: str
    run: RunDir
    spec: JobSpec

    def command(self) -> tuple[str, ...]:
        """Returns what becomes the worker."""
        here = str(self.run.path)
        return (sys.executable, "-m", "tfleet.worker", "--join", self.address, "--run-dir", here)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment of the worker: `environ` without what is another replica's, or secret."""
        tls = TLS_VARIABLES.values()
        kept = {name: value for name, value in environ.items() if name not in VARIABLES or name in tls}
        return {**kept, **tuning("worker", self.spec), TOKEN_FILE: str(self.run.token_file)}


def find_seat(
    target: str,
    token_file: str,
    run_dir: str,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Seat:
    """Finds a place in a running job; blocks while the job starts.

    Args:
        target: address of ps 0, or a run directory.
        token_file: as the user gave it; empty: the environment says it, or the run directory.
        run_dir: where this machine sees the run directory; empty: under the same path as ps 0.
        environ: the environment.
        tell: says what is waited for.
        clock: seconds, monotonic.
        sleep: waits so many seconds.

    Raises:
        WrongInput: when this process cannot take part, as things are; the job has not noticed.
    """
    address, own = _target(target, run_dir)
    token, tls = find_token(token_file, environ, own), _tls(own, environ)
    if tls and address.path:
        raise WrongInput(
            f"TLS does nothing at {address}, which no network reaches; leave the TLS flags and variables out"
        )
    answer, waiting = _ask(address, token, tls), False
    _check_version(str(answer["version"]))
    end = clock() + JobSpec.model_fields["join_timeout"].default
    while not answer["ready"]:
        if clock() >= end:
            raise WrongInput(f"the job at {address} has not begun to train; try again when 'tfleet status' says so")
        if not waiting:
            waiting = True
            tell("the job is starting: waiting until it trains")
        sleep(AGAIN)
        answer = _ask(address, token, tls)
    run = _seen(own, str(answer["run_dir"]), address, token)
    return Seat(str(address), run, _possible(run, environ))


def find_token(token_file: str, environ: Mapping[str, str], run: RunDir | None) -> bytes:
    """Returns the job's token: from `token_file`, else from the environment, else from the run directory.

    Raises:
        WrongInput: when there is none, or others can read its file.
    """
    for path, given in ((token_file, "by --token-file"), (environ.get(TOKEN_FILE, ""), f"in {TOKEN_FILE}")):
        if path:
            _require_private(path)
            return read_token(path, given)
    if TOKEN in environ:
        if token := environ[TOKEN].strip().encode():
            return token
        raise WrongInput(f"{TOKEN} is empty; put the job's token into it, or name its file by --token-file")
    if run:
        return read_token(run.token_file, "by --token-file")
    raise WrongInput(
        f"the job's token is needed, which is in RUN/.tfleet/token of its run directory: name a file with it by "
        f"--token-file or {TOKEN_FILE}, or put it into {TOKEN}"
    )


def _target(target: str, run_dir: str) -> tuple[Address, RunDir | None]:
    """Returns the address of ps 0, and the run directory as far as the user has named it."""
    if is_handle(target):
        at = Handle.parse(target)
        raise WrongInput(
            f"a job on a cluster is not joined by hand; 'tfleet scale {at} --workers N' gives it more workers"
        )
    if is_address(target):
        return Address.parse(target), RunDir.existing(run_dir) if run_dir else None
    if not Path(target).expanduser().is_dir():
        raise WrongInput(f"'{target}' is neither an address nor a folder; {FORMS}")
    run = RunDir.existing(target)
    if run_dir and RunDir.at(run_dir) != run:
        raise WrongInput(f"--run-dir {run_dir} and {target} are two run directories; leave --run-dir out")
    phase = run.status().get("phase")
    if phase in OVER:
        raise WrongInput(f"the job in {run.path} is over ({phase}); only a job that trains can be joined")
    return control.endpoint(run)[0], run


def _tls(run: RunDir | None, environ: Mapping[str, str]) -> Tls | None:
    """Returns the certificates: those that the environment names, else those of the job, where its folder is known."""
    return tls_of(JobSpec.load(run.job_file), environ=environ) if run else tls_of_environment(environ)


def _ask(address: Address, token: bytes, tls: Tls | None) -> dict[str, Any]:
    try:
        return control.call(address, token, "invitation", tls=tls)
    except ConnectionLost as error:
        raise WrongInput(
            f"{error}; see by 'tfleet status RUN' that the job runs, and where it may be joined: "
            "from another machine only when it was started with --listen"
        ) from None
    except ProtocolError as error:
        raise WrongInput(f"what answers at {address} is no ps of this tfleet ({__version__}): {error}") from None


def _check_version(theirs: str) -> None:
    if theirs != __version__:
        raise WrongInput(f"the job runs with tfleet {theirs}, and this is {__version__}; install the same here")


def _seen(own: RunDir | None, told: str, address: Address, token: bytes) -> RunDir:
    run = own or RunDir.at(told)
    if not run.job_file.is_file():
        raise WrongInput(
            f"the job's run directory {told} is not there on this machine: a worker reads commits in it and writes "
            "summaries; mount it (NFS, for one), and say where by --run-dir if the path is another here"
        )
    run.check_format()
    if read_token(run.token_file, "by making it readable for this user") != token:
        raise WrongInput(
            f"the run directory {run.path} is not that of the job at {address}, whose is {told}; correct --run-dir"
        )
    for folder in (run.summaries, run.export):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise WrongInput(f"{folder} cannot be written by this user; join as the user who started the job")
    return run


def _possible(run: RunDir, environ: Mapping[str, str]) -> JobSpec:
    """Returns the job, when its task's file, its data and its certificates are on this machine."""
    spec = JobSpec.load(run.job_file)
    tls_of(spec, environ=environ)
    check_name(spec.task)
    if spec.data_dir and not Path(spec.data_dir).is_dir():
        raise WrongInput(f"the job's data folder {spec.data_dir} is not there on this machine; mount or copy it there")
    return spec


def _require_private(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # reading it tells what is wrong
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
        raise WrongInput(
            f"the token file {path} can be read by others (mode {stat.S_IMODE(mode):04o}), who could join the job too; "
            f"make it yours alone: chmod 600 {path}"
        )
