"""What commands ask of a running job: to end."""

from __future__ import annotations

from tfleet.spec.errors import WrongInput
from tfleet.spec.rundir import RunDir
from tfleet.wire import client
from tfleet.wire.address import Address
from tfleet.wire.auth import read_token

TIMEOUT = 5.0
"""Seconds that ps 0 has to answer."""


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
    try:
        address = Address.parse(run.endpoint_file.read_text(encoding="utf-8").strip())
    except OSError:
        raise WrongInput(f"no job runs in {run.path}; start one with 'tfleet train'") from None
    channel = client.connect(address, read_token(run.token_file), patience=0)
    try:
        channel.set_timeout(TIMEOUT)
        channel.call("end", how=how, reason=reason)
    finally:
        channel.close()
