"""The TLS of a job, for those that have it: a process of a job without does not import Python's ssl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfleet.spec.environment import UNIX
from tfleet.spec.job import JobSpec
from tfleet.wire.address import Address

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls


def tls_of(spec: JobSpec, serving: str = "") -> Tls | None:
    """Returns the certificates of a job, checked; None when it has none. Reads files, does not block otherwise.

    Args:
        spec: the job.
        serving: address under which others reach this replica, which must be in its certificate; empty: it only
            connects.

    Raises:
        WrongInput: when a file cannot be used, or a peer would refuse the certificate.
    """
    if not spec.tls_cert:
        return None
    from tfleet.wire.tls import Tls

    tls = Tls(spec.tls_cert, spec.tls_key, spec.tls_ca, spec.tls_server_name)
    tls.check("" if not serving or serving.startswith(UNIX) else Address.parse(serving).host)
    return tls
