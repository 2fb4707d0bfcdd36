"""What commands ask of a running job: to end, or to have more workers or fewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir
from tfleet.wire import client
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token
from tfleet.wire.secure import tls_of

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls

TIMEOUT = 5.0
"""Seconds that ps 0 has to answer."""
PATIENCE = 3.0
"""Seconds to find ps 0, which may just be being started again."""


def request_end(run: RunDir, how: str, reason: str) -> None:
    """Asks the coordinator of a running job to end it; returns when it has understood, before the job has ended.

    Args:
        run: of the job.
        how: stop (evaluate and export what there is), interrupt (commit only), or fail.
        reason: one sentence for status and log; may be empty for stop.

    Raises:
        WrongInput: when no job runs there.
        ConnectionLost: when ps 0 does not answer.
    """
    _ask(run, "end", how=how, reason=reason)


def request_scale(run: RunDir, workers: int) -> None:
    """Asks the coordinator of a running job for so many workers; returns when it has agreed, before they are there.

    Raises:
        WrongInput: when no job runs there, it is ending, or it may not have so many.
        ConnectionLost: when ps 0 does not answer.
    """
    _ask(run, "scale", workers=workers)


def request_remark(run: RunDir, text: str) -> None:
    """Has the status of a running job tell something; does not wait for a ps 0 that is not there.

    Raises:
        WrongInput: when no job runs there.
        ConnectionLost: when ps 0 does not answer.
    """
    _ask(run, "remark", patience=0.0, timeout=1.0, text=text)


def endpoint(run: RunDir) -> tuple[Address, bytes]:
    """Returns the address of ps 0 and the token of a job that runs on this machine.

    Raises:
        WrongInput: when no job runs there.
    """
    try:
        return Address.parse(run.endpoint_file.read_text(encoding="utf-8").strip()), read_token(run.token_file)
    except OSError:
        raise WrongInput(f"no job runs in {run.path}; start one with 'tfleet train'") from None


def _ask(run: RunDir, name: str, **values: Any) -> None:
    address, token = endpoint(run)
    tls = None if address.path else tls_of(JobSpec.load(run.job_file))
    call(address, token, name, tls=tls, **values)


def call(
    address: Address,
    token: bytes,
    name: str,
    *,
    tls: Tls | None = None,
    patience: float = PATIENCE,
    timeout: float = TIMEOUT,
    **values: Any,
) -> dict[str, Any]:
    """Makes one call to the coordinator of a running job, by a connection of its own; blocks for the answer.

    Args:
        address: of ps 0.
        token: of the job.
        name: `end` (how, reason), `scale` (workers), `commit` (answers once what there is now is committed), `fail`
            (message, exit_code), `remark` (text), `spent` (index, reason: of a worker that will not be started again),
            or `invitation` (answers what a worker that wants to join has to know).
        tls: certificates; None: the job has no TLS.
        patience: seconds to find ps 0.
        timeout: seconds that it has to answer.
        **values: arguments of the call.

    Returns:
        The answer's values.

    Raises:
        TfleetError: what ps 0 answers with.
        ConnectionLost: when it does not answer.
    """
    channel = client.connect(address, token, patience=patience, tls=tls)
    try:
        channel.set_timeout(timeout)
        return channel.call(name, **values)[0]
    finally:
        channel.close()
