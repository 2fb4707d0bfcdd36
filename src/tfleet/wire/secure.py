"""The TLS of a job, for those that have it: a process of a job without does not import Python's ssl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfleet.spec.environment import TLS_VARIABLES, UNIX
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import TLS_FILES, JobSpec
from tfleet.wire.address import Address

if TYPE_CHECKING:
    from tfleet.wire.tls import Tls


def tls_of(spec: JobSpec, serving: str = "", environ: Mapping[str, str] | None = None) -> Tls | None:
    """Returns the certificates of a job, checked; None when it has none. Reads files, does not block otherwise.

    Args:
        spec: the job.
        serving: address under which others reach this replica, which must be in its certificate; empty: it only
            connects.
        environ: may name other files than the job does; None: it may not.

    Raises:
        WrongInput: when a file cannot be used, or a peer would refuse the certificate.
    """
    named = _named(environ or {})
    if named is None and spec.tls_cert:
        named = {name: getattr(spec, name) for name in TLS_VARIABLES}
    if named is None:
        return None
    named["tls_server_name"] = named["tls_server_name"] or spec.tls_server_name
    return _checked(named, "" if not serving or serving.startswith(UNIX) else Address.parse(serving).host)


def tls_of_environment(environ: Mapping[str, str]) -> Tls | None:
    """Returns the certificates that the environment names, checked, for who does not know the job yet; None: no TLS.

    Raises:
        WrongInput: when only some are named, a file cannot be used, or a peer would refuse the certificate.
    """
    named = _named(environ)
    return None if named is None else _checked(named, "")


def _named(environ: Mapping[str, str]) -> dict[str, str] | None:
    named = {name: environ.get(variable, "") for name, variable in TLS_VARIABLES.items()}
    missing = [TLS_VARIABLES[name] for name in TLS_FILES if not named[name]]
    if len(missing) == len(TLS_FILES) and not named["tls_server_name"]:
        return None
    if missing:
        raise WrongInput(
            f"the variables {', '.join(TLS_VARIABLES[name] for name in TLS_FILES)} go together: "
            f"set {' and '.join(missing)} too, or unset all of {', '.join(TLS_VARIABLES.values())}"
        )
    return named


def _checked(named: Mapping[str, str], host: str) -> Tls:
    from tfleet.wire.tls import Tls

    tls = Tls(named["tls_cert"], named["tls_key"], named["tls_ca"], named["tls_server_name"])
    tls.check(host)
    return tls
