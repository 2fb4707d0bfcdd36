"""Pods with certificates of a Secret: they train, and let in nobody without one."""

from __future__ import annotations

import pytest
from certificates import files, tls
from namespaces import Namespace
from releases import Release
from tasks_on_claim import PACED, UNTIL_STOPPED

from tfleet.server.control import call
from tfleet.spec.errors import TfleetError
from tfleet.wire.address import Address

pytestmark = [pytest.mark.tf, pytest.mark.processes]
NAME = "behind-tls"


def test_replicas_show_the_certificate_of_the_secret(images: None, shared_namespace: Namespace) -> None:
    made = files(NAME)
    keys = {"tls.crt": made["tls_cert"], "tls.key": made["tls_key"], "ca.crt": made["tls_ca"]}
    given = [f"--from-file={key}={path}" for key, path in keys.items()]
    shared_namespace.kubectl("create", "secret", "generic", "certificates", *given).good()
    release = Release(shared_namespace, NAME).install(*PACED, UNTIL_STOPPED, "tls.secretName=certificates")
    release.wait_for_step(20)
    first = Address.parse(f"{release.pod('ps', 0)['status']['podIP']}:2222")
    for other in (None, tls(NAME, ca="somebody else", server_name=NAME)):
        with pytest.raises(TfleetError, match=r"TLS|certificate"):
            call(first, release.token, "end", how="stop", reason="", tls=other)
    call(first, release.token, "end", how="stop", reason="", tls=tls(NAME, server_name=NAME))
    jobs = release.wait_over()
    assert all("Complete" in conditions for conditions in jobs.values()), jobs
    assert release.final_status()["phase"] == "stopped"
